"""`./run demo`: the whole product on this machine, on free ports, in one temporary directory."""
