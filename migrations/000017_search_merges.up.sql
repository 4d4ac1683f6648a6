-- The words of one commit are written once, and merged with those of others
-- sixteen at a time and not four: less is written again and again, and a search
-- looks in a few more places. Merging goes on a little with each write; only a
-- backlog of 64 is merged at once.
INSERT INTO message_search(message_search, rank) VALUES ('hashsize', 4194304), ('automerge', 16), ('crisismerge', 64);
