"""Many guests from one file: its cells, the processes that run them, and what is told of them.

A cell is the words of one ``sevplug run``; what those mean is for that command alone.
"""
