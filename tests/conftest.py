"""Property tests are judged by what they find, not by the speed of the machine they run on."""

from hypothesis import settings

settings.register_profile("segue", deadline=None)
settings.load_profile("segue")
