import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from lablease.obs.log import LogFormat, configure, hide_secrets

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjbGllbnQifQ.c2lnbmF0dXJl"


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """What is logged; the process's own set-up comes back at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_lines_of_ours_and_of_libraries_take_the_same_way(out: io.StringIO) -> None:
    configure(LogFormat.JSON, out=out)
    structlog.get_logger().info("lease.assigned", lease="l1")
    logging.getLogger("somebody").warning("look %s", "here")

    ours, theirs = lines(out)
    assert (ours["event"], ours["lease"], ours["level"]) == ("lease.assigned", "l1", "info")
    assert (theirs["event"], theirs["level"]) == ("look here", "warning")
    assert str(ours["timestamp"]).endswith("Z")


def test_lines_below_the_level_are_left_out(out: io.StringIO) -> None:
    configure(LogFormat.JSON, "warning", out=out)
    structlog.get_logger().info("small")
    logging.getLogger("somebody").info("small")

    assert out.getvalue() == ""


@pytest.mark.parametrize("format", list(LogFormat))
def test_a_token_is_never_written_wherever_it_stands(out: io.StringIO, format: LogFormat) -> None:
    configure(format, out=out)
    structlog.get_logger().info(f"took {JWT}", token="opaque", nested={"headers": [f"Bearer {JWT}"]}, fine="kept")
    logging.getLogger("somebody").error("refused %s", JWT)

    text = out.getvalue()
    assert "kept" in text
    assert "eyJ" not in text
    assert "opaque" not in text


def test_a_token_in_a_traceback_is_hidden(out: io.StringIO) -> None:
    configure(LogFormat.JSON, out=out)
    try:
        raise ValueError(JWT)
    except ValueError:
        structlog.get_logger().exception("failed")

    assert "ValueError" in out.getvalue()
    assert "eyJ" not in out.getvalue()


def test_what_is_no_secret_stays_as_it_is() -> None:
    event = {"grant": 7, "names": ["a", "b"], "inner": {"password": "x", "count": 1}}

    assert hide_secrets(None, "", event) == {
        "grant": 7,
        "names": ["a", "b"],
        "inner": {"password": "[hidden]", "count": 1},
    }
