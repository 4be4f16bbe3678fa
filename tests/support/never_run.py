"""For tests that were written, and tried by hand at most: they say nothing yet, and must not look as if they did."""

import pytest

NEVER_RUN = pytest.mark.skip(reason="never run to its end yet: take this mark away, run it, and mend what it finds")
