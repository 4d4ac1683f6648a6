INSERT INTO message_search(message_search, rank) VALUES ('hashsize', 1048576), ('automerge', 4), ('crisismerge', 16);
