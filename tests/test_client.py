# SPDX-License-Identifier: Apache-2.0
"""The client against libzmq's ROUTER, over the standard library's transport and over pyzmq's alike."""
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from router import TOKEN, Memory, PyzmqDealer, Router
from servers import polled

from fresco_backend import settings
from fresco_protocol.client import Client, Transport
from fresco_protocol.connection import Connection, default_file, host_and_port, read_connection
from fresco_protocol.errors import (
    Busy,
    JobUnknown,
    MessageMalformed,
    MessageRefused,
    ServerError,
    ServerMissing,
    ServerSilent,
    VersionMismatch,
)
from fresco_protocol.events import Event, Previewed, Warned, WatchEnded
from fresco_protocol.messages import Cancel, ListJobs, Submit, fresh_key
from fresco_protocol.seal import sign
from fresco_protocol.shot import Delivery, Look, Plate, Shot
from fresco_protocol.zmtp import Dealer

SHOT = Shot(name="sh010", plate=Plate(sequence="/s/p.####.exr"), look=Look(prompt="ink"),
            delivery=Delivery(sequence="/s/o.####.exr"))
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
Dial = Callable[[str], Transport]


@pytest.fixture(params=[Dealer, PyzmqDealer], ids=["stdlib", "pyzmq"])
def dial(request: pytest.FixtureRequest) -> Dial:
    """Both transports."""
    made: Dial = request.param
    return made


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as running:
        yield running


def warned(number: int) -> Warned:
    """A durable event that tells its number."""
    return Warned(number=number, time=1.0, job="job-000001", code="test", text=f"event {number}")


def at_port(port: int) -> Connection:
    return Connection(endpoint=f"tcp://127.0.0.1:{port}", token=TOKEN, pid=4711, version="0.1.0")


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Warned)]


def test_a_request_gets_its_reply_and_a_submit_counts_once(router: Router, dial: Dial) -> None:
    with Client(router.connection, software="test", dial=dial) as client:
        assert client.connect().software == "router 0"
        submit = Submit(shot=SHOT, client_key=fresh_key(), priority=5)
        first, second = client.request(submit), client.request(submit)
        assert (first.created, second.created, second.record) == (True, False, first.record)
        assert client.request(ListJobs()).records == (first.record,)
        assert (first.record.name, first.record.priority) == ("sh010", 5)


def test_the_servers_error_is_raised_as_its_class(router: Router, dial: Dial) -> None:
    with Client(router.connection, software="test", dial=dial) as client:
        with pytest.raises(JobUnknown) as caught:
            client.request(Cancel(job="job-999999"))
        assert str(caught.value) == "no such job (job-999999). fresco jobs lists them."
        assert client.request(ListJobs()).total == 0


def test_events_come_in_order_each_once_and_passing_ones_between(router: Router, dial: Dial) -> None:
    with Client(router.connection, software="test", dial=dial) as client:
        for _ in range(3):
            router.emit(warned)
        client.watch(since=1)
        router.tell(Previewed(number=3, time=2, job="job-000001", frame=7, step=1, steps=20, width=8, height=8,
                              jpeg=b"\xff\xd8small"))
        router.emit(warned)
        events = polled(client, lambda events: len(texts(events)) == 3)
        assert texts(events) == ["event 2", "event 3", "event 4"]
        previews = [event for event in events if isinstance(event, Previewed)]
        assert [preview.jpeg for preview in previews] == [b"\xff\xd8small"]
        assert (client.last, client.journal) == (4, "journal-1")


def test_events_that_come_during_a_request_are_kept_for_the_poll(router: Router) -> None:
    with Client(router.connection, software="test") as client:
        client.watch()
        router.emit(warned)
        for _ in range(3):
            client.request(ListJobs())
            time.sleep(0.05)
        assert texts(client.poll()) == ["event 1"]


def test_polling_never_blocks(router: Router) -> None:
    with Client(router.connection, software="test", seconds=0.3) as client:
        client.watch()
        router.silent = True
        slowest = 0.0
        while client.trouble is None:
            begin = time.perf_counter()
            client.poll()
            slowest = max(slowest, time.perf_counter() - begin)
            time.sleep(0.01)
        assert isinstance(client.trouble, ServerSilent)
        assert slowest < 0.1


def test_one_job_can_be_watched_alone(router: Router, dial: Dial) -> None:
    with Client(router.connection, software="test", dial=dial) as client:
        client.watch(job="job-000002")
        router.emit(warned)
        router.emit(lambda number: Warned(number=number, time=1, job="job-000002", code="test", text="mine"))
        assert texts(polled(client, lambda events: bool(texts(events)))) == ["mine"]


def test_a_restarted_server_is_found_and_nothing_is_missed(tmp_path: Path, dial: Dial) -> None:
    memory = Memory()
    with Router(memory) as router:
        client = Client(router.write_connection(tmp_path), software="test", dial=dial)
        client.watch()
        router.emit(warned)
        assert texts(polled(client, lambda events: bool(texts(events)))) == ["event 1"]
    memory.events.extend([warned(2), warned(3)])
    later = Router(memory)  # on another port, with another token
    later.token = TOKEN[::-1]
    with later, client:
        later.write_connection(tmp_path)
        later.emit(warned)
        events = polled(client, lambda events: len(texts(events)) == 3)
        assert texts(events) == ["event 2", "event 3", "event 4"]
        assert client.trouble is None
        assert client.request(ListJobs()).total == 0


def test_a_request_goes_out_again_over_a_new_connection(tmp_path: Path) -> None:
    memory = Memory()
    submit = Submit(shot=SHOT, client_key=fresh_key())
    with Router(memory) as router:
        client = Client(router.write_connection(tmp_path), software="test")
        assert client.request(submit).created
    with Router(memory) as router, client:
        router.write_connection(tmp_path)
        assert not client.request(submit).created


def test_a_watch_that_the_server_forgot_is_taken_up_again(router: Router, dial: Dial) -> None:
    with Client(router.connection, software="test", dial=dial) as client:
        client.watch()
        router.forget_watchers()
        router.emit(warned)
        assert texts(polled(client, lambda events: bool(texts(events)))) == ["event 1"]


def test_a_watch_that_the_server_ended_is_taken_up_again(router: Router) -> None:
    with Client(router.connection, software="test") as client:
        client.watch()
        router.tell(WatchEnded(number=0, time=1))
        router.forget_watchers()
        router.emit(warned)
        assert texts(polled(client, lambda events: bool(texts(events)))) == ["event 1"]


def test_another_numbering_begins_at_its_start(router: Router) -> None:
    router.emit(warned)
    with Client(router.connection, software="test") as client:
        assert client.watch(since=700, journal="another").since == 0
        assert texts(polled(client, lambda events: bool(texts(events)))) == ["event 1"]
        assert client.last == 1


def test_more_events_than_are_kept_are_asked_for_again(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fresco_protocol.client.MOST_EVENTS", 5)
    monkeypatch.setattr("fresco_protocol.client.MOST_PER_POLL", 3)
    router.memory.events.extend(warned(number) for number in range(1, 9))
    with Client(router.connection, software="test") as client:
        client.watch()
        time.sleep(0.2)
        client.request(ListJobs())  # all eight arrive before the reply
        assert len(client._events) <= 5
        assert texts(polled(client, lambda events: len(texts(events)) == 8)) == [f"event {n}" for n in range(1, 9)]


def test_where_no_server_runs_the_client_says_where_it_looked(tmp_path: Path) -> None:
    path = str(tmp_path / "connection.json")
    client = Client(path, software="test")
    with pytest.raises(ServerMissing, match="there is no connection file") as caught:
        client.request(ListJobs())
    assert (caught.value.where, caught.value.remedy) == (path, 'Start it with "fresco serve".')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    (tmp_path / "connection.json").touch(mode=0o600)
    (tmp_path / "connection.json").write_text(at_port(port).to_json())
    with pytest.raises(ServerMissing, match="process 4711 no longer listens") as caught:
        client.request(ListJobs())
    assert caught.value.where == f"tcp://127.0.0.1:{port}, as {path} says"
    client.poll()
    assert client.trouble is None  # nothing was watched


def test_a_watch_begun_without_a_server_starts_when_one_comes(tmp_path: Path) -> None:
    with Client(str(tmp_path / "connection.json"), software="test") as client:
        with pytest.raises(ServerMissing):
            client.watch()
        client.poll()
        assert isinstance(client.trouble, ServerMissing)
        with Router() as router:
            router.write_connection(tmp_path)
            router.emit(warned)
            assert texts(polled(client, lambda events: bool(texts(events)))) == ["event 1"]
            assert client.trouble is None


@pytest.mark.parametrize("silence", ["silent server", "wrong token", "mute listener"])
def test_silence_has_a_deadline(router: Router, dial: Dial, silence: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        connection = at_port(mute.getsockname()[1]) if silence == "mute listener" else router.connection
        if silence == "silent server":
            router.silent = True
        elif silence == "wrong token":
            router.token = TOKEN[::-1]
        begin = time.monotonic()
        with Client(connection, software="test", dial=dial) as client, pytest.raises(ServerSilent) as caught:
            client.request(ListJobs(), seconds=0.3)
    assert 0.25 < time.monotonic() - begin < 3
    assert caught.value.what == "no answer within 0.3 s"
    assert len(router.refusals) == (silence == "wrong token")


def test_what_a_server_without_the_token_says_is_refused() -> None:
    def forged(parts: list[bytes]) -> list[bytes]:
        return [*parts[:2], bytes(32), *parts[3:]]

    with (Router(tamper=forged) as router, Client(router.connection, software="test") as client,
          pytest.raises(MessageRefused, match="not made with this server's token")):
        client.request(ListJobs())


def test_another_schema_of_shots_names_the_side_to_upgrade() -> None:
    for schema, side in ((2, "client"), (0, "server")):
        with Router(shot_schema=schema) as router, Client(router.connection, software="test") as client:
            with pytest.raises(VersionMismatch) as caught:
                client.connect()
            assert caught.value.remedy == f"Upgrade the {side}."


class OlderDealer(Dealer):
    """Says that its client speaks version 1 of the wire."""

    def send(self, parts: Sequence[bytes]) -> None:
        header, stamp, _, body = parts
        header = header.replace(b'"wire":2', b'"wire":1')
        super().send([header, stamp, sign(TOKEN, [header, stamp, body]), body])


def test_another_version_of_the_wire_names_the_side_to_upgrade(router: Router) -> None:
    with Client(router.connection, software="test", dial=OlderDealer) as client:
        with pytest.raises(VersionMismatch) as caught:
            client.connect()
        assert caught.value.what == "the client speaks version 1 of the wire, this server version 2"
        assert caught.value.remedy == "Upgrade the client."
    assert router.refusals == []


def test_a_stranger_on_the_port_is_named_for_what_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:
        def speak() -> None:
            peer, _ = web.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                peer.recv(64)

        speaker = threading.Thread(target=speak)
        speaker.start()
        with (Client(at_port(web.getsockname()[1]), software="test") as client,
              pytest.raises(MessageMalformed, match="does not speak ZeroMQ")):
            client.connect()
        speaker.join(5)


def test_polling_a_server_that_cannot_be_understood_raises_and_then_waits(router: Router) -> None:
    with Client(router.connection, software="test", dial=OlderDealer) as client:
        with pytest.raises(VersionMismatch):
            client.watch()
        with pytest.raises(VersionMismatch):
            polled(client, lambda events: False)
        assert client.poll() == []
        assert isinstance(client.trouble, VersionMismatch)


def test_a_server_that_takes_no_more_clients_says_so(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Router, client: bytes, request: object) -> object:
        raise Busy("100 clients are connected")

    with Client(router.connection, software="test") as client:
        with monkeypatch.context() as patch:
            patch.setattr(Router, "_reply", refuse)
            with pytest.raises(Busy):
                client.watch()
            polled(client, lambda events: isinstance(client.trouble, Busy))
        router.emit(warned)
        assert texts(polled(client, lambda events: bool(texts(events)))) == ["event 1"]
        assert client.trouble is None


def test_the_example_of_the_page_runs(router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "protocol" / "README.md").read_text(encoding="utf-8")
    monkeypatch.setenv("FRESCO_CONNECTION", router.write_connection(tmp_path))
    exec(page.split("```python\n")[1].split("```")[0], {"shot": SHOT})
    assert [type(message).__name__ for message in router.received] == ["Hello", "Submit", "Watch"]


def test_a_refused_watch_is_given_up(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Router, client: bytes, request: object) -> object:
        if type(request).__name__ == "Watch":
            raise JobUnknown("no such job", where="job-000007")
        return real(self, client, request)  # type: ignore[arg-type]

    real = Router._reply
    monkeypatch.setattr(Router, "_reply", refuse)
    with Client(router.connection, software="test") as client:
        with pytest.raises(JobUnknown):
            client.watch(job="job-000007")
        assert client.poll() == []
        assert client.request(ListJobs()).total == 0


def test_the_connection_file_is_private_whole_and_where_settings_say(tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(endpoint="tcp://127.0.0.1:40001", token=TOKEN, pid=1, version="0.1.0")
    path = tmp_path / "connection.json"
    path.touch(mode=0o600)
    path.write_text(connection.to_json())
    assert read_connection(str(path)) == connection
    assert TOKEN not in repr(connection)
    for text in ("", "{}", connection.to_json().replace("tcp:", "ipc:"), connection.to_json().replace(TOKEN, "short")):
        path.write_text(text)
        with pytest.raises(ServerError, match="damaged"):
            read_connection(str(path))
    path.chmod(0o644)
    with pytest.raises(ServerError, match="mode 0644"):
        read_connection(str(path))
    for stated in ("", str(tmp_path / "mine.json")):
        monkeypatch.setenv("FRESCO_CONNECTION", stated)
        for runtime in ("", "relative", str(tmp_path)):
            monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
            assert default_file() == str(settings.connection_file())


def test_endpoints_are_hosts_and_ports() -> None:
    assert host_and_port("tcp://127.0.0.1:40001") == ("127.0.0.1", 40001)
    assert host_and_port("tcp://[::1]:1") == ("::1", 1)
    for wrong in ("tcp://", "ipc:///tmp/x", "tcp://h:", "tcp://a b:1", "tcp://127.0.0.1:99999", "tcp://127.0.0.1:0"):
        with pytest.raises(ServerError):
            host_and_port(wrong)


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from fresco_protocol import client, connection, job, messages, seal, wire, zmtp
from fresco_protocol.errors import JobUnknown
from fresco_protocol.shot import Delivery, Look, Plate, Shot
shot = Shot(plate=Plate(sequence="/s/p.####.exr"), look=Look(prompt="ink"), delivery=Delivery(sequence="/s/o.####.exr"))
with client.Client(sys.argv[2], software="python " + sys.version.split()[0]) as line:
    made = line.request(messages.Submit(shot=shot, client_key=messages.fresh_key()))
    line.watch(job=made.record.id)
    events = []
    while not events:
        events = [event for event in line.poll() if event.durable]
        line._transport.wait(0.1)
    assert events[0].record == made.record, events
    try:
        line.request(messages.Cancel(job="job-999999"))
    except JobUnknown:
        print("done", made.record.id)
"""


def interpreter(version: str) -> str | None:
    """Its path, where this machine has one."""
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    return str(found[-1]) if found else shutil.which(f"python{version}")


@pytest.mark.parametrize("version", PYTHONS)
def test_every_python_of_the_hosts_speaks_with_the_server(version: str, router: Router, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    protocol = str(Path(__file__).parents[1] / "protocol")
    run = subprocess.run([python, "-I", "-B", "-W", "error", "-c", SCRIPT, protocol, router.write_connection(tmp_path)],
                         capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout.split() == ["done", "job-000001"], run.stderr
