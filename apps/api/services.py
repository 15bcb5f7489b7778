"""The services shared by all requests of an API process. They are created once, before it starts."""

from dataclasses import dataclass

from pydantic import BaseModel, TypeAdapter

from apps.api.auth import ANYONE, Clients, read_keys
from apps.api.body import batch_model
from apps.api.idempotency import Keys
from apps.api.large_results import LargeResults
from apps.api.parser import Parser
from apps.api.publisher import Publisher
from apps.api.quotas import Quotas
from apps.api.redis_memory import RedisMemory
from apps.api.store import Store
from apps.api.streams import Streams
from apps.api.submission import Submitter
from apps.api.waiter import Waiter
from apps.contract.ids import TaskIds
from apps.contract.quota import Quota
from apps.contract.settings import ApiSettings
from apps.contract.tasks import Input, Registry, input_adapter


@dataclass(frozen=True, slots=True)
class Services:
    """All services. None opens a connection before the app's lifespan begins."""

    settings: ApiSettings
    clients: Clients
    ids: TaskIds
    inputs: TypeAdapter[Input]
    batch: type[BaseModel]
    parser: Parser
    quotas: Quotas
    submitter: Submitter
    publisher: Publisher
    store: Store
    redis_memory: RedisMemory
    large_results: LargeResults
    waiter: Waiter
    streams: Streams


def make_services(settings: ApiSettings, registry: Registry) -> Services:
    """Create the services for these tasks. Raises SystemExit with one sentence if the API keys cannot be read."""
    api_keys = read_keys(settings)
    ids = TaskIds(settings.task_id_key.get_secret_value().encode())
    redis_url = settings.celery_result_backend.get_secret_value()
    deadline_s = settings.publish_deadline_s
    store, waiter = Store(redis_url), Waiter(redis_url)
    publisher = Publisher(
        settings.celery_broker_url.get_secret_value(),
        deadline_s=deadline_s,
        in_flight_max=settings.publish_in_flight_max,
        heartbeat_s=settings.broker_heartbeat_s,
    )
    keys = Keys(store, waiter, ids, deadline_s=deadline_s, life_s=settings.key_ttl_s)
    redis_memory = RedisMemory(store, settings.results_full_share)
    default = Quota(settings.quota_tasks_per_s, settings.quota_open_tasks)
    quotas = Quotas(store, api_keys, default, life_s=settings.record_ttl_s, anyone=ANYONE)
    return Services(
        settings=settings,
        clients=Clients(api_keys),
        ids=ids,
        inputs=input_adapter(registry),
        batch=batch_model(registry),
        parser=Parser(registry),
        quotas=quotas,
        submitter=Submitter(registry, ids, publisher, keys, redis_memory, quotas, deadline_s=deadline_s),
        publisher=publisher,
        store=store,
        redis_memory=redis_memory,
        large_results=LargeResults(redis_url),
        waiter=waiter,
        streams=Streams(per_client_max=settings.streams_per_client_max, total_max=settings.streams_max),
    )
