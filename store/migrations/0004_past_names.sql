-- Names that groups had, each up to the entry that gave the next one: who left
-- before that entry goes on seeing it. What was renamed before version 4 is not
-- here; it shows the oldest name that is known.
CREATE TABLE past_name (
    conversation INTEGER NOT NULL,
    until_seq    INTEGER NOT NULL,   -- of the renaming; the name is that of before
    name         TEXT    NOT NULL,
    PRIMARY KEY (conversation, until_seq)
) WITHOUT ROWID;
