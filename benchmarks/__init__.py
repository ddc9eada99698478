"""Speed and size against peers, and attacks; nothing else imports them but their tests."""
