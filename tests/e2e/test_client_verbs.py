"""The client's verbs against a running Poste: what they print, and what their exit codes mean."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess

import pytest
from support.cli import POSTE, environment, poste, up
from support.terminal import on_terminal

ADD = "calculator.v1.SumService/Add"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with up(tmp_path_factory.mktemp("verbs") / "data") as one:
        one.wait_ready()
        one.act("stop", "subtraction")
        yield one


@pytest.fixture
def ask(running):
    def run(*arguments, **options):
        return poste(*arguments, env=environment(POSTE_URL=running.gateway), **options)

    return run


@pytest.fixture
def kept(ask):
    """The id of a call that waits for its service."""

    def call(*arguments):
        done = ask("call", "calculator.v1.SubtractionService/Subtract", "a=7", "b=2", "--json", *arguments)
        assert done.returncode == 3, done.stderr
        return json.loads(done.stdout)["id"]

    return call


def test_a_call_prints_its_response(ask):
    """The plainest use would not work, from either kind of argument."""
    plain = ask("call", ADD, "a=2", "b=3")
    text = ask("call", ADD, "-d", '{"a": 2, "b": 3}', "--json")
    route = ask("call", "/v1/sum", "-d", "-", "--json", input='{"a": 2, "b": 3}')

    assert (plain.returncode, plain.stdout, plain.stderr) == (0, '{\n  "result": 5\n}\n', "")
    assert (text.returncode, text.stdout) == (0, '{"result": 5}\n')
    assert (route.returncode, route.stdout) == (0, '{"result": 5}\n')


def test_a_wrong_call_says_what_is_wrong(ask):
    """A person would not learn which field; a program not that it failed."""
    person = ask("call", ADD, "b=3")
    program = ask("call", ADD, "b=3", "--json")

    assert person.returncode == program.returncode == 1
    assert person.stdout == ""
    assert person.stderr.count("a: ") == 1
    assert "(INVALID_ARGUMENT, request " in person.stderr
    assert json.loads(program.stdout)["status"] == 400
    assert json.loads(program.stdout)["requestId"]


@pytest.mark.parametrize("method", ["no.Such/Method", "calculator.v1.SumService/Sum", "sum/Add", "/v1/sums"])
def test_a_method_that_is_not_there_is_told_by_its_name(ask, method):
    """A user who misspelled it would read of a path that was never typed, and not where to find the right name."""
    person = ask("call", method, "a=2")
    program = ask("call", method, "a=2", "--json")

    assert (person.returncode, person.stdout) == (1, "")
    assert person.stderr == f"poste: there is no method {method}; `poste services` lists those there are\n"
    assert program.returncode == 1
    assert json.loads(program.stdout)["type"] == "/problems/no-such-route"


def test_a_call_to_a_service_that_is_away_is_told_by_its_exit_code(ask, kept):
    """A script could not distinguish `done` from `not yet`."""
    person = ask("call", "calculator.v1.SubtractionService/Subtract", "a=1", "b=1")
    asked = ask("task", kept())
    waited = ask("task", kept(), "--wait", "1", "--json")
    refused = ask("call", "calculator.v1.SubtractionService/Subtract", "a=1", "b=1", "--no-queue")

    assert person.returncode == asked.returncode == waited.returncode == 3
    assert "QUEUED" in person.stdout
    assert "calculator.v1.SubtractionService/Subtract" in asked.stdout
    assert "given up at" in asked.stdout
    assert json.loads(waited.stdout)["state"] == "QUEUED"
    assert refused.returncode == 1


def test_a_call_may_be_repeated_under_its_key(ask):
    """A user whose call was not answered would make another one with each try."""
    first, again = (
        ask("call", "calculator.v1.SubtractionService/Subtract", "a=1", "b=1", "--key", "order 1", "--json")
        for _ in range(2)
    )
    other = ask("call", "calculator.v1.SubtractionService/Subtract", "a=1", "b=2", "--key", "order 1", "--json")

    assert json.loads(first.stdout)["id"] == json.loads(again.stdout)["id"]
    assert (other.returncode, json.loads(other.stdout)["status"]) == (1, 422)


def test_a_wait_that_is_interrupted_has_told_the_id(ask, running):
    """`Aborted!` was all that was said, and the call's id was lost with it."""
    message = ("calculator.v1.SubtractionService/Subtract", "a=7", "b=2")
    with on_terminal("call", *message, "--wait", "60", "--url", running.gateway, columns=200) as terminal:
        shown = terminal.until("; waiting for its end")
        terminal.strike(b"\x03")
        code = terminal.end()
    task = re.search(r"kept as (\S+);", shown)[1]

    assert code == 130
    assert b"Aborted" not in terminal.raw
    assert f"poste task {task} --wait".encode() in terminal.raw
    assert ask("cancel", task).returncode == 0


def test_a_call_that_is_kept_is_waited_for_and_answered(running):
    """`--wait` would be over once the call is kept."""
    message = ("calculator.v1.SubtractionService/Subtract", "a=7", "b=2")
    with on_terminal("call", *message, "--wait", "60", "--json", "--url", running.gateway, columns=200) as terminal:
        terminal.until("; waiting for its end")
        running.act("start", "subtraction")
        terminal.until('{"result": 5}')
        code = terminal.end()
    running.act("stop", "subtraction")

    assert code == 0


def test_the_gateway_of_a_poste_up_is_found_by_its_folder(running, tmp_path):
    """Its port would have to be typed with each verb; or another gateway be asked without a word."""
    folder = ("--data", str(running.data))
    named = poste("call", ADD, "a=2", "b=3", "--json", *folder)
    from_environment = poste("services", "--json", env=environment(POSTE_DATA=str(running.data)))
    parts = poste("ps", "--json", env=environment(POSTE_DATA=str(running.data)))
    (tmp_path / ".poste").symlink_to(running.data)
    by_default = poste("queues", "--json", cwd=tmp_path)
    elsewhere = poste("call", ADD, "a=2", "b=3", *folder, "--url", "127.0.0.1:1")
    absent = poste("services", "--data", str(tmp_path))

    assert (named.returncode, named.stdout) == (0, '{"result": 5}\n')
    assert len(json.loads(from_environment.stdout)) == 3
    assert [part["name"] for part in json.loads(parts.stdout)] == list(running.parts())
    assert by_default.returncode == 0
    assert (elsewhere.returncode, "127.0.0.1:1" in elsewhere.stderr) == (2, True)
    assert (absent.returncode, absent.stderr) == (
        2,
        f"poste: no `poste up` runs in {tmp_path} (another folder: --data)\n",
    )


def test_a_kept_call_is_waited_for(ask):
    """`poste task --wait` would not bring the result."""
    kept = ask("call", ADD, "a=2", "b=3", "--async", "--task-ttl", "60", "--result-ttl", "60", "--json")
    done = ask("task", json.loads(kept.stdout)["id"], "--wait", "--json")

    assert kept.returncode == 3
    assert done.returncode == 0
    assert json.loads(done.stdout)["response"] == {"result": 5}


def test_a_kept_call_can_be_cancelled(ask, kept):
    """It could not be taken back."""
    task = kept()
    first, again, after = ask("cancel", task, "--json"), ask("cancel", task), ask("task", task)

    assert (first.returncode, again.returncode, after.returncode) == (0, 0, 1)
    assert json.loads(first.stdout)["state"] == "CANCELLED"
    assert "CANCELLED" in after.stdout


def test_the_beginning_of_a_printed_id_will_do(running, tmp_path):
    """An id of 90 characters can be neither read out nor typed."""
    env = environment(POSTE_URL=running.gateway, XDG_CACHE_HOME=str(tmp_path))

    def kept():
        done = poste("call", "calculator.v1.SubtractionService/Subtract", "a=7", "b=2", "--json", env=env)
        return json.loads(done.stdout)["id"]

    first, second = kept(), kept()
    shown = [poste("task", task[:12], "--json", env=env) for task in (first, second)]
    cancelled = poste("cancel", first[:12], second[:12], env=env)
    elsewhere = poste("task", first[:12], env=environment(POSTE_URL=running.gateway))

    assert [json.loads(one.stdout)["id"] for one in shown] == [first, second]
    assert cancelled.returncode == 0
    assert elsewhere.returncode == 1


def test_a_task_that_never_was_is_a_failure(ask):
    """A program would wait for ever for a misspelled id."""
    assert ask("task", "nonsense").returncode == 1
    assert ask("cancel", "nonsense").returncode == 1


def test_the_services_and_queues_are_listed(ask, kept):
    """A user could not learn what there is to call, or what waits."""
    kept()
    services = json.loads(ask("services", "--json").stdout)
    queues = json.loads(ask("queues", "--json").stdout)
    table = ask("services").stdout
    figures = ask("queues").stdout

    known = {service["name"]: service["availability"] for service in services}
    assert known == {
        "calculator.v1.SumService": "up",
        "calculator.v1.SubtractionService": "away",
        "calculator.v1.MultiplicationService": "up",
    }
    assert {queue["queue"]: queue["queued"] for queue in queues}["calculator.v1.SubtractionService"] >= 1
    assert any(
        "calculator.v1.SumService" in line and "POST /v1/sum" in line and "up" in line for line in table.splitlines()
    )
    assert "calculator.v1.SubtractionService" in figures


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("verb", ["services", "queues", "ps"])
def test_no_name_is_broken_on_a_narrow_terminal(running, verb, columns):
    """A name in two halves can be neither read nor copied."""
    with on_terminal(verb, "--data", str(running.data), columns=columns) as terminal:
        assert terminal.end() == 0
    shown = terminal.raw.decode()

    words = {"services": ["POST /calculator.v1.MultiplicationService/Multiply"], "queues": [], "ps": []}[verb]
    for word in [*words, "subtraction" if verb == "ps" else "calculator.v1.SubtractionService"]:
        assert word in shown
    if verb != "ps":
        assert max(map(len, _plain(shown).splitlines())) <= columns
        # One below the other, where they don't fit side by side; figures stay under their columns.
        assert ("queued 0" in shown) == (verb == "services" and columns == 80)
    if verb == "queues":
        assert ("\n  QUEUED  RUNNING  DELAYED" in _plain(shown).replace("\r", "")) == (columns == 80)


def _plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", shown)


def test_no_gateway_is_not_a_failure_of_the_call():
    """A script could not distinguish `the call failed` from `no gateway was reached`."""
    done = poste("call", ADD, "a=2", "b=3", "--url", "127.0.0.1:1")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "poste: no gateway answers at http://127.0.0.1:1 (`poste up` starts one; --url or POSTE_URL names another)\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("call", "nothing"),
        ("call", ADD, "a"),
        ("call", ADD, "-d", "["),
        ("task",),
        ("call", ADD, "--url", "ftp://x"),
        ("call", ADD, "a=2", "--async", "--wait", "8"),
        ("x",),
    ],
)
def test_wrong_usage_is_told_by_its_exit_code(arguments):
    """It would be taken for a failed call."""
    done = poste(*arguments)

    assert done.returncode == 2
    assert "Error" in done.stderr


def test_a_task_tells_its_life(ask, kept, running):
    """Who asks what became of a call would have to read the logs of every part."""
    task = kept()
    running.act("start", "subtraction")
    person = ask("task", task, "--wait", "--history")
    program = ask("task", task, "--history", "--json")
    running.act("stop", "subtraction")
    lines = [line.split() for line in person.stdout.splitlines()]
    events = json.loads(program.stdout)["events"]

    assert (person.returncode, program.returncode) == (0, 0)
    assert ["TIME", "AFTER", "EVENT"] in lines
    told = lines[lines.index(["TIME", "AFTER", "EVENT"]) + 1 :]
    assert [line[2] for line in told[:1]] == ["accepted"]
    assert [line[4:] for line in told[1:]] == [["started", "attempt", "1"], ["ended", "SUCCEEDED"]]
    assert [event["event"] for event in events] == ["accepted", "started", "ended"]


def test_all_of_a_queue_is_purged_only_once_it_was_asked_about(ask, running):
    """One word too few, and every dead call or kept result of a queue would be gone for good."""
    kept = ask("call", ADD, "a=2", "b=3", "--async", "--json")
    assert ask("task", json.loads(kept.stdout)["id"], "--wait").returncode == 0
    verb = ("purge", "--ended", "calculator.v1.SumService", "--data", str(running.data))

    def asked(answer):
        with on_terminal(*verb) as terminal:
            terminal.until(" of calculator.v1.SumService? [y/N]")
            terminal.strike(answer)
            # A Ctrl-C in the very moment before the line is read is seen with the next one only.
            with contextlib.suppress(AssertionError):
                return terminal.end(seconds=5), terminal.raw
            terminal.strike(answer)
            return terminal.end(), terminal.raw

    script = poste(*verb)
    refused, interrupted, agreed = asked(b"n\r"), asked(b"\x03"), asked(b"y\r")
    unasked = poste(*verb, "--yes")
    empty = poste("purge", "--all", "calculator.v1.SumService", "--data", str(running.data))

    assert (script.returncode, script.stdout, "say --yes" in script.stderr) == (2, "", True)
    assert (refused[0], b"nothing was purged" in refused[1]) == (1, True)
    assert (interrupted[0], b"Aborted" in interrupted[1]) == (130, False)
    # What has only just ended stays.
    assert (agreed[0], b"0 purged" in agreed[1]) == (0, True)
    assert (unasked.returncode, unasked.stdout) == (0, "0 purged\n")
    # Where nothing is, nothing is asked.
    assert (empty.returncode, empty.stdout) == (0, "0 purged\n")


def test_doctor_says_what_is_wrong_and_what_to_do(ask, kept, running):
    """Who is woken by an alert would have to know of each place where something may be wrong."""
    task = kept()
    (running.data / "operator.token").chmod(0o644)
    person = poste("doctor", "--data", str(running.data))
    program = poste("doctor", "--json", "--data", str(running.data))
    (running.data / "operator.token").chmod(0o600)
    assert ask("cancel", task).returncode == 0
    nowhere = poste("doctor", "--url", "127.0.0.1:1", "--json")
    found = {one["about"]: one for one in json.loads(program.stdout)}
    wrong = {about for about, one in found.items() if not one["well"]}

    service = "calculator.v1.SubtractionService"
    assert wrong == {"operator.token", "subtraction", service, f"queue {service}"}
    assert found.keys() >= {"id.key", "disk", "redis", "versions", "gateway", "Redis", "clock"}
    assert found["subtraction"]["advice"] == "poste start subtraction"
    assert person.returncode == program.returncode == 1
    assert next(line for line in person.stdout.splitlines() if line.startswith("!!")).split()[1] == "operator.token:"
    assert (nowhere.returncode, json.loads(nowhere.stdout)[0]["well"]) == (1, False)


def test_the_logs_of_all_parts_are_searched_at_once(ask, kept, running):
    """What became of one call would have to be gathered from seven files."""
    task = kept("-H", "X-Request-Id: the-one")
    assert ask("cancel", task).returncode == 0
    data = ("--data", str(running.data))
    by_request = poste("logs", "--request", "the-one", *data)
    by_task = poste("logs", "--task", task[:30], *data)
    of_one = poste("logs", "redis", "-n", "2", *data)
    nothing = poste("logs", "--request", "none-such", *data)
    nowhere = poste("logs", "--data", str(running.data / "none"))

    assert (by_request.returncode, by_task.returncode) == (0, 0)
    assert any("gateway" in line and task in line and "the-one" in line for line in by_request.stdout.splitlines())
    assert by_request.stdout.splitlines()[0] in by_task.stdout.splitlines()
    assert len(by_task.stdout.splitlines()) >= 2
    assert [line.split()[1] for line in of_one.stdout.splitlines()] == ["redis"] * 2
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert (nowhere.returncode, "no `poste up` has run in" in nowhere.stderr) == (2, True)


def test_the_logs_are_followed(ask, running):
    """Who waits for a line would have to ask again and again."""
    with on_terminal("logs", "gateway", "-f", "-n", "1", "--data", str(running.data), columns=300) as terminal:
        terminal.until("gateway")
        assert ask("call", ADD, "a=2", "b=3", "-H", "X-Request-Id: seen-live").returncode == 0
        terminal.until("request_id=seen-live")
        terminal.strike(b"\x03")

        assert terminal.end() == 130


def test_a_header_is_sent_with_a_call(ask):
    """What handlers read of headers could not be tried from here."""
    done = ask("call", ADD, "-H", "X-Request-Id: my-own-request", "b=3")
    wrong = ask("call", ADD, "-H", "nothing", "a=2", "b=3")

    assert (done.returncode, "request my-own-request" in done.stderr) == (1, True)
    assert (wrong.returncode, "'nothing' is not NAME:VALUE" in wrong.stderr) == (2, True)


def test_a_method_is_described_with_an_example_that_works(ask):
    """Who wants to call it would need its proto, and the rules by which JSON is made of that."""
    person = ask("describe", ADD)
    program = ask("describe", ADD, "--json")
    service = ask("describe", "calculator.v1.SumService", "--json")
    missing = ask("describe", "calculator.v1.SumService/Sum")
    strange = ask("describe", "no.Such")
    lines = person.stdout.splitlines()
    (example,) = [line.split()[1:] for line in lines if line.startswith("poste call ")]

    assert (person.returncode, program.returncode, service.returncode) == (0, 0, 0)
    assert ["a", "double", "required"] in [line.split() for line in lines]
    assert any("POST /v1/sum" in line for line in lines)
    assert json.loads(program.stdout)["request"] == "calculator.v1.AddRequest"
    assert json.loads(service.stdout) == [json.loads(program.stdout)]
    assert ask(*example).returncode == 0
    assert (missing.returncode, strange.returncode) == (1, 1)
    assert "no.Such" in strange.stderr


def test_a_method_that_streams_is_described_too(ask):
    """It has no time in the queue, and no example of what can't be called."""
    done = ask("describe", "calculator.v1.MultiplicationService")
    (_, example) = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("poste call ")]

    assert (done.returncode, done.stderr) == (0, "")
    assert "each message of its answer is a line" in done.stdout
    assert ask(*example).returncode == 0


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["poste", "desc"], ["describe"]),
        (["poste", "call", "calculator.v1.Su"], ["calculator.v1.SubtractionService/Subtract", ADD]),
        (["poste", "call", ADD, ""], ["a=", "b="]),
        # As bash takes `a=2` apart.
        (["poste", "call", ADD, "a", "=", "2", ""], ["b="]),
        (["poste", "pause", "calculator.v1.M"], ["calculator.v1.MultiplicationService"]),
    ],
)
def test_bash_completes_what_there_is_to_call(running, words, completed):
    """Names of services, methods and fields would have to be typed whole, and known by heart."""
    script = poste("completion", "bash")
    assert script.returncode == 0
    typed = "\n".join(
        [
            f'poste() {{ {shlex.join([*POSTE])} "$@"; }}',
            # The script asks the command by `env`, which knows no function.
            script.stdout.replace("$1)", f"{shlex.join([*POSTE])})"),
            f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}",
            "_poste_completion poste",
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ]
    )
    env = environment(POSTE_URL=running.gateway)
    done = subprocess.run(["/bin/bash", "-c", typed], env=env, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.split() == completed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell):
    """Its users would have no completion."""
    done = poste("completion", shell)

    assert done.returncode == 0
    assert "_POSTE_COMPLETE" in done.stdout
    # Behind `FIELD=` its value is typed.
    assert ("compopt -o nospace" in done.stdout) == (shell == "bash")


def test_completion_without_a_gateway_says_nothing():
    """A shell would show a traceback in the middle of the line."""
    env = environment(
        POSTE_URL="127.0.0.1:1", _POSTE_COMPLETE="bash_complete", COMP_WORDS="poste\ncall\n", COMP_CWORD="2"
    )
    done = poste(env=env)

    assert (done.stdout.strip(), done.stderr) == ("", "")
