"""For all tests: how hypothesis works here."""

from hypothesis import settings

# The time of one example says nothing on a machine that others use too.  The same examples in each run, so that a
# failure comes from the change that is tested.
settings.register_profile("binfmtd", deadline=None, derandomize=True, max_examples=200)
settings.load_profile("binfmtd")
