"""Handles a post, from its body to the accepted task. Called by the routes and the fast path."""

from apps.api import errors
from apps.api.body import is_light, parse_batch, parse_input
from apps.api.parser_process import Parsed
from apps.api.publisher import CONFIRMED, Outcome
from apps.api.services import Services


def admit(services: Services, owner: str, key: str | None) -> None:
    """Raise the 429 problem, before the post is read, if no task would be admitted.

    A post with a key is not checked here: it may repeat an accepted post, which uses no quota.
    """
    if key is None:
        services.quotas.require_one(owner)


async def accept(services: Services, owner: str, key: str | None, body: bytes) -> str:
    """Publish the input in a body; returns the task id. Raises the problems of a post."""
    if is_light(body):
        payload = parse_input(services.inputs, body)
    else:
        payload = await services.parser.parse_input(owner, body)
    submitted = await services.submitter.submit_one(owner, payload, key=key, body=body)
    if submitted.outcome is not CONFIRMED:
        raise problem_of(submitted.outcome)
    return submitted.task_id


async def inputs_of_batch(services: Services, owner: str, body: bytes) -> list[Parsed]:
    """The inputs of a batch, with a problem for each invalid input. Raises the problem of the body."""
    if is_light(body):
        return parse_batch(services.batch, services.inputs, body)
    return await services.parser.parse_batch(owner, body)


def problem_of(outcome: Outcome) -> errors.Problem:
    """The problem for an unconfirmed publish."""
    return errors.refused(outcome.reason) if outcome.kind == "refused" else errors.outcome_unknown(outcome.reason)
