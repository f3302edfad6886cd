"""Alerts: what is wrong, whether it is worth a word, and how the word gets out.

    observe -> machine -> notices -> texts -> outbox -> deliver -> sender
    (what is)  (what      (who is    (words)  (a row per (leases,  (one channel's
               fires)     told when)          channel)   attempts) child process)

machine, outage, hours, silences and notices are pure. evaluate runs them every few seconds: world reads all they go by,
evaluate and tell, which fills the outbox, write what follows in one transaction. Nothing is kept in memory between two
rounds, so that a restart changes nothing and a second process doubles nothing.
"""
