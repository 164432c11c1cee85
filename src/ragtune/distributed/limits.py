"""How long the ranks wait for each other, in seconds, and why so long: all of it, so that it goes together."""

from __future__ import annotations

SHORTEST, LONGEST = 0.002, 0.03
"""Between two looks for what another rank has to say: soon at first, then seldom enough to cost little. Whoever
waited for long would otherwise begin late, too."""
BEAT = 1.0
"""Between two signs of life."""
SILENT = 60.0
"""Without one a rank counts as lost: a machine that swaps, or reads a model, may say nothing for half of it."""
BROKEN = 4 * BEAT
"""The same, once a connection broke: somebody is gone, and the only question is who."""
COMING = 600.0
"""Until every rank has come: schedulers start nodes minutes apart, and each imports from a shared disk."""
REACH = 120.0
"""For rank 0 to be there when another one comes; as long it waits, in the end, for who is still coming."""
STARTED = 10.0
"""The same of a rank that rank 0 started itself: it was there before."""
KNOWN = 15.0
"""From a connection's breaking until it is known who is gone: BROKEN, and beats of two threads."""
LEAVING = 5.0
"""For a process to end that has nothing to save, when another one is lost or the run is over."""
STUCK = KNOWN + LEAVING + 10.0
"""For rank 0, in a sum with one that is lost, to notice it: a collective may never end. Who fails leaves word,
stays for KNOWN, and ends within LEAVING, by which the connections break; then rank 0 can still save."""
COLLECTIVE = 7 * 24 * 3600.0
"""For a collective: who is late in one is not lost, and who is lost the signs of life tell."""
