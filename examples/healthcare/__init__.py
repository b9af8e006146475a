"""Healthcare: cautious online updates in ICU-Sepsis, a simulated ward. Not for clinical use."""
