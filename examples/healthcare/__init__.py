"""Healthcare: cautious online updates in ICU-Sepsis, a simulated ward. Not for clinical use."""

from studies.command import needs

needs(["icu_sepsis"], "healthcare")
