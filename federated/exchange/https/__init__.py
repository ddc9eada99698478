"""The exchange over HTTPS: message files are carried between two folders.

``server.py`` answers at the coordinator, ``client.py`` dials out from a site. What is in a message
is the business of ``mailbox.py``, at either end, as if there were no network.
"""
