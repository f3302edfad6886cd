"""Several pieces of work at once, each in a thread of its own."""

import threading
from collections.abc import Callable


def together(*jobs: Callable[[], None], within: float = 60) -> None:
    """All of them end without an error within so many seconds, or the test fails."""
    failures: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - told to the test below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(within)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)
