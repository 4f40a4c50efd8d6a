"""The feed by a gRPC server that knows nothing of Poste: `python -m support.plain_feed`, on the port `POSTE_PORT`."""

from __future__ import annotations

import asyncio
import os

from support import feed


async def main() -> None:
    async with feed.plain(feed.Feed(), int(os.environ["POSTE_PORT"])):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
