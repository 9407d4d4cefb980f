"""Reading the log in a process beside, `python -m mapper.beside`, while the mapper folds what was read: on two cores.

Of the work of a rebuild, two fifths are the client's and the decoding's.  What was read comes through a pipe, each batch as
4 bytes that say its length, big-endian, and MessagePack.  It settles nothing, and it ends with the mapper, for nobody reads
the pipe then.
"""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncGenerator
from typing import BinaryIO

import msgspec
import nats.errors
import nats.js.errors
import structlog
import uvloop
from msgspec import Struct

from mapper.child import end_with_the_mapper
from mapper.readout import Readout, read_out
from mapper.step import Policy
from shared import bus, erasure, log
from shared.config import Config
from shared.login import login_as
from shared.past import past
from shared.topology import MAPPER

LENGTH_BYTES = 4
AHEAD_BYTES = 4 * 1024**2  # read from the pipe ahead of the fold: some four batches
TRIES_MAX = 5  # of a process that ends otherwise than it should
AGAIN_S = 2.0  # between them

logger = structlog.get_logger()


class Errand(Struct, frozen=True):
    """What is to be read."""

    nats_url: str
    config: Config
    after: int
    to: int


class BesideError(Exception):
    """The process beside ends again and again.  Its own lines in the log say why."""


async def read_beside(nats_url: str, config: Config, *, after: int, to: int) -> AsyncGenerator[Readout, None]:
    """The log from one sequence to another, in order, however long the broker is away.  Raises BesideError."""
    decoder = msgspec.msgpack.Decoder(Readout)
    failed = 0  # times in a row that nothing was read
    while failed < TRIES_MAX:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mapper.beside",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=AHEAD_BYTES,
        )  # fmt: skip
        assert process.stdin is not None  # noqa: S101 - they are pipes
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(msgspec.json.encode(Errand(nats_url, config, after, to)) + b"\n")
            while length := int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES)):
                readout = decoder.decode(await process.stdout.readexactly(length))
                yield readout
                after, failed = readout.sequence, 0
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await process.wait()
            failed += code != os.EX_UNAVAILABLE
            logger.warning("beside_failed", after=after, code=code)
        else:
            return
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await asyncio.sleep(AGAIN_S)
    raise BesideError(
        f"the process that reads the log ended {TRIES_MAX} times in a row: the mapper's log says more"
    )


async def run(errand: Errand, out: BinaryIO) -> None:
    """Read, and write.  Raises nats' errors, and OSError when nobody reads."""
    broker = bus.connect(
        errand.nats_url, service="mapper-beside", login=login_as("mapper", errand.nats_url, os.environ)
    )
    await broker.connect()
    try:
        connection = bus.client(broker)
        if connection is None:
            raise ConnectionError("no connection to NATS")
        forgotten = (await erasure.load(connection)).tombstones()
        reading, encoder = Policy.of(errand.config).reading, msgspec.msgpack.Encoder()
        async for messages in past(broker, MAPPER.stream, after=errand.after, to=errand.to):
            _write(out, encoder.encode(read_out(messages, reading, forgotten)))
        _write(out, b"")
    finally:
        await broker.stop()


def _write(out: BinaryIO, packed: bytes) -> None:
    out.write(len(packed).to_bytes(LENGTH_BYTES))
    out.write(packed)
    out.flush()


def main() -> None:
    """One errand, a line of JSON on standard input.  Exit code 69: the broker is away."""
    log.set_up("mapper-beside", level="warning")
    errand = msgspec.json.decode(sys.stdin.buffer.readline(), type=Errand)
    end_with_the_mapper()
    gc.disable()  # what is read here makes no cycles, and a look for them costs 7 % of the time
    try:
        # Buffered, whatever PYTHONUNBUFFERED says: without a buffer, a write that a signal cuts short loses the rest.
        with open(sys.stdout.fileno(), "wb", closefd=False) as out:
            uvloop.run(run(errand, out))
    except BrokenPipeError:  # the mapper reads no more
        os._exit(os.EX_UNAVAILABLE)  # without flushing what nobody reads
    except (nats.errors.Error, nats.js.errors.Error, OSError) as error:
        logger.warning("beside_interrupted", error=type(error).__name__)
        sys.exit(os.EX_UNAVAILABLE)


if __name__ == "__main__":
    main()
