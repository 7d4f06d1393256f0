"""What the studies on clusters share."""

import pytest
import tiny_study


@pytest.fixture(scope="session")
def studies(tmp_path_factory):
    """A folder with records of drawn streets, for studies of a few steps."""
    folder = tmp_path_factory.mktemp("studies")
    tiny_study.make_records(folder)
    return folder


@pytest.fixture(scope="session")
def expected(studies):
    """What the engine of one machine computes, two runs at once."""
    return tiny_study.Study(studies, "local", "local", "jobs_at_once = 2\n").finish()


@pytest.fixture(autouse=True)
def ended_studies():
    """No study goes on after its test."""
    yield
    for process in tiny_study.STARTED:
        process.kill()
        process.wait()
    tiny_study.STARTED.clear()
