"""The rules of the watchdog: pure functions over frozen data. No I/O, no clock, no chance; time is an argument."""
