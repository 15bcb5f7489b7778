"""Calls the scripts that write and read a task's record, with named arguments."""

import redis

from apps.contract import quota, states

# RECORD_TTL_S is longer than the age of any test id: the set of ended ids outlives the id.
RESULT_TTL_S, RECORD_TTL_S = 100, 7 * 24 * 3600
OWNER = "me"


class Records:
    """The records in a Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._begin, self._end = client.register_script(states.BEGIN), client.register_script(states.END)
        self._cancel, self._read = client.register_script(states.CANCEL), client.register_script(states.READ)
        self._end_when_full = client.register_script(states.END_WHEN_FULL)
        self._give_back = client.register_script(states.GIVE_BACK)

    def begin(self, task_id: str, publish: str, *, now_s: float = 1.5, old: bool = False, owner: str = OWNER) -> str:
        record_keys = states.record_keys(task_id)
        keys = record_keys.script_keys(task_id, owner, states.begun_channel(task_id))
        arguments = [*record_keys.script_arguments(now_s, RESULT_TTL_S, RECORD_TTL_S), publish, RECORD_TTL_S, int(old)]
        return str(self._begin(keys=keys, args=arguments))

    def end(
        self, task_id: str, publish: str, state: str, meta: str | bytes = "null", *, result_ttl_s: int = RESULT_TTL_S
    ) -> str:
        record_keys = states.record_keys(task_id)
        arguments = [*record_keys.script_arguments(2.5, result_ttl_s, RECORD_TTL_S), publish, state, meta]
        end = self._end if state == "SUCCESS" else self._end_when_full
        return str(end(keys=record_keys.script_keys(task_id, OWNER), args=arguments))

    def give_back(self, task_id: str, publish: str) -> str:
        record_keys = states.record_keys(task_id)
        arguments = [*record_keys.script_arguments(2.5, RESULT_TTL_S, RECORD_TTL_S), publish]
        return str(self._give_back(keys=record_keys.script_keys(task_id, OWNER), args=arguments))

    def open_tasks(self, task_id: str) -> int:
        """Return the owner's number of open tasks in this task's period; negative if ended tasks were never posted."""
        return int(self.client.hget(quota.key(OWNER), quota.field(task_id)) or 0)

    def cancel(self, task_id: str) -> str:
        record_keys = states.record_keys(task_id)
        arguments = [*record_keys.script_arguments(3.5, RESULT_TTL_S, RECORD_TTL_S), task_id, RECORD_TTL_S]
        return str(self._cancel(keys=record_keys.script_keys(task_id, OWNER, states.CANCEL_CHANNEL), args=arguments))

    def read(self, task_id: str) -> states.Record:
        record_keys = states.record_keys(task_id)
        return states.decode(self._read(keys=[record_keys.record, record_keys.earlier, states.requeued_key(task_id)]))
