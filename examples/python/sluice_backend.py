"""A backend's end of the bus on Redis, as protocol/SPEC.md (14.5 and 14.8) prescribes it.

The gateway appends each client's `Request` to one of the eight streams of its
service. A stream has one owner at a time, by lease, so requests of one key are
handled in order. The owner first goes through what it, or the owner before it,
read and never acknowledged, then reads what is new; it appends its answer to
the stream of the gateway that asked, and acknowledges afterwards. So a request
may come twice: handling it again must do no harm.

    def handle(request):                    # a BackendRequest
        return 0, b"hello, " + request.origin.user_id.encode()

    Backend("greeter", handle, lambda: connect(url)).run()

`handle` runs in eight threads, one a partition. Start the program twice, and
the second one takes over when the first one dies.
"""

import argparse
import logging
import secrets
import signal
import threading
import time

import redis
import redis.backoff
import redis.retry
from google.protobuf.message import DecodeError
from sluice.v1 import bus_pb2

PARTITIONS = 8
GROUP = "sluice"
OWNER = "owner"
BATCH_MAX_ENTRIES = 64
BLOCK_MAX_MS = 1_000
DEAD_LETTERS_MAX_ENTRIES = 10_000
TELL_AGAIN_S = 30
# The status that a client gets when `handle` raised.
FAILED = 500

log = logging.getLogger("sluice.backend")

# Every script compares the lease's token first, so that an owner that was
# asleep while its lease ran out takes and acknowledges nothing any more.
OR_LOST = "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 'LOST' end\n"
RENEW = OR_LOST + "return redis.call('PEXPIRE', KEYS[2], ARGV[2])"
RELEASE = OR_LOST + "return redis.call('DEL', KEYS[2])"
# Entries after the cursor; if there are none, the id behind which to wait.
READ = OR_LOST + """
local read = redis.call('XREADGROUP', 'GROUP', 'sluice', 'owner', 'COUNT', ARGV[3],
  'STREAMS', KEYS[1], ARGV[2])
if read then return {read[1][2]} end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then return {{}, info[i + 1]} end
end
"""
DONE = OR_LOST + """
for i = 2, #ARGV do
  redis.call('XACK', KEYS[1], 'sluice', ARGV[i])
  redis.call('XDEL', KEYS[1], ARGV[i])
end
return 'OK'
"""
# Sets an entry aside with the reason: to be looked at and replayed by people.
BURY = OR_LOST + """
local row = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if row then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'p', row[2][2], 'id', ARGV[2],
    'deliveries', ARGV[3], 'reason', ARGV[4])
end
redis.call('XACK', KEYS[1], 'sluice', ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return 'OK'
"""


class LeaseLost(Exception):
    """Another process owns the partition now."""


class Backend:
    """Serves all partitions of a service.

    `handle` takes a `BackendRequest` and returns a status (0: success) and a
    payload of at most 61,440 bytes. `connect` makes a Redis client (see below). When
    `handle` raises, the client gets the status FAILED, and the request goes to
    the dead letters; when Redis fails within it, it is called again, up to
    `deliveries_max` times.
    """

    def __init__(self, service, handle, connect, prefix="sluice:", lease_ms=5_000,
                 deliveries_max=16):
        self.service = service
        self.handle = handle
        self.connect = connect
        self.prefix = prefix
        self.lease_ms = lease_ms
        self.deliveries_max = deliveries_max
        self.stopping = threading.Event()
        self.careful = threading.Lock()  # who redoes what may have killed a process
        self.told = ("", 0.0)  # the last trouble with Redis, and when it was logged

    def run(self):
        """Serves until `stop`, or SIGTERM or Ctrl-C."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: self.stop())
        threads = [threading.Thread(target=self._serve, args=(partition,))
                   for partition in range(PARTITIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def stop(self):
        """Finishes what is under way and gives the leases back."""
        self.stopping.set()

    def _serve(self, partition):
        client = self.connect()  # of its own: a blocking read stalls whoever shares it
        while not self.stopping.is_set():
            owner = Partition(self, client, partition)
            try:
                if owner.take():
                    log.info("%s: served here", owner.stream)
                    owner.work()
                else:
                    self.stopping.wait(self.lease_ms / 10_000)
            except LeaseLost:
                log.warning("%s: the lease was lost", owner.stream)
            except redis.RedisError as error:
                self._tell(error)
                self.stopping.wait(0.5)
        client.close()

    def _tell(self, error):
        """Once for all partitions, and again when it is something else or lasts."""
        what, when = self.told
        if what != str(error) or time.monotonic() - when > TELL_AGAIN_S:
            self.told = (str(error), time.monotonic())
            log.warning("Redis: %s; trying again", error)


class Partition:
    """One ownership of one partition."""

    def __init__(self, backend, client, partition):
        name = f"rq:{backend.service}:{{{partition}}}"
        self.backend = backend
        self.client = client
        self.stream = backend.prefix + name
        self.lease = f"{backend.prefix}lease:{name}"
        self.dead = f"{backend.prefix}dead:{name}"
        self.token = secrets.token_hex(16)
        # Back in time to renew the lease.
        self.block_ms = min(BLOCK_MAX_MS, backend.lease_ms // 3)
        self.renewed = 0.0

    def take(self):
        """True if nobody else has the lease."""
        if not self.client.set(self.lease, self.token, nx=True, px=self.backend.lease_ms):
            return False
        self.renewed = time.monotonic()
        return True

    def work(self):
        """Serves until the backend stops, and gives the lease back."""
        self._make_group()
        try:
            self._redo_pending()
            behind = None
            while not self.backend.stopping.is_set():
                self._renew()
                if behind:  # waits without taking anything
                    self.client.xread({self.stream: behind}, count=1, block=self.block_ms)
                entries, *behind = self._run(READ, ">", BATCH_MAX_ENTRIES)
                behind = behind[0] if behind else None
                self._settle(entries, deliveries=1)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            # Redis has lost the stream; the next owner makes it anew.
            log.warning("%s was lost, with what it held", self.stream)
        finally:
            self._run(RELEASE, may_be_lost=True)

    def _make_group(self):
        try:
            self.client.xgroup_create(self.stream, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):  # it is there: fine
                raise

    def _redo_pending(self):
        """What was read and never acknowledged, one by one in the whole process: one of
        them may be what killed it, and must not take its neighbours along each time."""
        while not self.backend.stopping.is_set():
            self._renew()
            if not self.backend.careful.acquire(timeout=self.block_ms / 1_000):
                continue
            try:
                self._renew()
                if not self._redo_first():
                    return
            finally:
                self.backend.careful.release()

    def _redo_first(self):
        """False when nothing is pending."""
        rows = self.client.xpending_range(self.stream, GROUP, "-", "+", 1, OWNER)
        if not rows:
            return False
        deliveries = rows[0]["times_delivered"]
        if deliveries >= self.backend.deliveries_max:
            reason = f"read {deliveries} times and never acknowledged"
            self._bury(rows[0]["message_id"], deliveries, reason)
        else:
            entries, *_ = self._run(READ, "0", 1)
            self._settle(entries, deliveries + 1)
        return True

    def _settle(self, entries, deliveries):
        """Answers each at once, acknowledges all at the end."""
        done = []
        for entry_id, fields in entries:
            self._renew()
            try:
                self._answer(fields)
                done.append(entry_id)
            except redis.RedisError:
                raise  # it stays pending and comes again
            except Exception as error:
                log.exception("%s %s", self.stream, entry_id)
                self._bury(entry_id, deliveries, f"{type(error).__name__}: {error}")
        if done:
            self._run(DONE, *done)

    def _answer(self, fields):
        request = bus_pb2.BackendRequest()
        try:
            # No fields: it was trimmed away.
            request.ParseFromString(fields[1] if fields else b"")
        except DecodeError:
            log.warning("%s: an entry that nobody can read is passed over", self.stream)
            return
        if not request.origin.reply_to:
            return
        try:
            status, payload = self.backend.handle(request)
        except redis.RedisError:
            raise
        except Exception:
            self._reply(request, FAILED, b"")
            raise
        self._reply(request, status, payload)

    def _reply(self, request, status, payload):
        origin = request.origin
        response = bus_pb2.BackendResponse(
            request_id=origin.request_id, status=status, payload=payload)
        target = bus_pb2.Target(connection_id=origin.connection_id, user_id=origin.user_id)
        delivery = bus_pb2.Delivery(targets=[target], response=response)
        down = bus_pb2.Down(deliveries=[delivery]).SerializeToString()
        # Not made if it isn't there: then the gateway is gone, and nobody waits.
        self.client.xadd(self.backend.prefix + origin.reply_to, {"p": down}, nomkstream=True)

    def _renew(self):
        if time.monotonic() - self.renewed > self.backend.lease_ms / 3_000:
            self._run(RENEW, self.backend.lease_ms)
            self.renewed = time.monotonic()

    def _bury(self, entry_id, deliveries, reason):
        self._run(BURY, entry_id, deliveries, reason[:1_000], DEAD_LETTERS_MAX_ENTRIES)

    def _run(self, script, *arguments, may_be_lost=False):
        keys = [self.stream, self.lease, self.dead]
        answer = self.client.eval(script, len(keys), *keys, self.token, *arguments)
        if answer == b"LOST" and not may_be_lost:
            raise LeaseLost
        return answer


def is_late(request):
    """True when the gateway has answered `timeout` by itself already."""
    return time.time() * 1_000 > request.deadline_ms


def arguments(description):
    """The flags that every backend has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--redis", default="redis://127.0.0.1:6379", metavar="URL")
    parser.add_argument("--key-prefix", default="sluice:")
    parser.add_argument("--lease-ms", type=int, default=5_000,
                        help="for how long a dead owner's partition stays with it")
    parser.add_argument("--deliveries-max", type=int, default=16)
    return parser


def run(service, handle, options):
    """Serves with these flags until it is told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    Backend(
        service, handle, lambda: connect(options.redis), options.key_prefix,
        options.lease_ms, options.deliveries_max,
    ).run()


def connect(url):
    """A client that repeats nothing by itself: a read whose answer was lost has
    taken entries, which a second one would leave lying."""
    never = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    return redis.Redis.from_url(url, retry=never, socket_timeout=10)
