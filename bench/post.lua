-- What a client sends: one task, or BATCH of them.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("KEY")
local task = '{"task":"task_1","name":"abc"}'
local batch = tonumber(os.getenv("BATCH"))
wrk.body = batch == 0 and task or '{"tasks":[' .. string.rep(task .. ",", batch - 1) .. task .. "]}"
