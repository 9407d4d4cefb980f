import gc

import pytest

from shared.lasting import lasting


@pytest.fixture(autouse=True)
def _as_before():
    yield
    gc.unfreeze()
    gc.enable()


def test_within_nothing_is_looked_through_and_afterwards_not_what_was_made_there():
    made = []
    with lasting():
        within = gc.isenabled()
        made.append([made])

    assert not within
    assert gc.isenabled()
    assert not any(one is made for one in gc.get_objects())


def test_an_import_that_fails_leaves_the_collector_on():
    with pytest.raises(ImportError), lasting():
        raise ImportError

    assert gc.isenabled()
