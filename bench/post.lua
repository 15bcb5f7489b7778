-- The request of wrk: the task TASK, or a batch of BATCH copies.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("KEY")
local task = os.getenv("TASK")
local batch = tonumber(os.getenv("BATCH"))
wrk.body = batch == 0 and task or '{"tasks":[' .. string.rep(task .. ",", batch - 1) .. task .. "]}"
