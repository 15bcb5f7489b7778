"""From the body of a post to the task that the broker has. The routes and the fast path call the same functions."""

from apps.api import errors
from apps.api.body import is_light, parse_batch, parse_input
from apps.api.parser_process import Parsed
from apps.api.publisher import CONFIRMED, Outcome
from apps.api.services import Services


def admit(services: Services, owner: str, key: str | None) -> None:
    """Before a post is read: raises the 429 problem where not even one task would be admitted.

    A post with a key may repeat one that was accepted, and costs nothing then.
    """
    if key is None:
        services.quotas.require_one(owner)


async def accept(services: Services, owner: str, key: str | None, body: bytes) -> str:
    """The id of the task that the broker has. Raises the problems of a post."""
    if is_light(body):
        payload = parse_input(services.inputs, body)
    else:
        payload = await services.parser.parse_input(owner, body)
    submitted = await services.submitter.submit_one(owner, payload, key=key, body=body)
    if submitted.outcome is not CONFIRMED:
        raise problem_of(submitted.outcome)
    return submitted.task_id


async def inputs_of_batch(services: Services, owner: str, body: bytes) -> list[Parsed]:
    """The inputs of a batch, and the problem of each that is none. Raises the problem of the body."""
    if is_light(body):
        return parse_batch(services.batch, services.inputs, body)
    return await services.parser.parse_batch(owner, body)


def problem_of(outcome: Outcome) -> errors.Problem:
    """What a client is told of a publish that is not confirmed."""
    return errors.refused(outcome.reason) if outcome.kind == "refused" else errors.outcome_unknown(outcome.reason)
