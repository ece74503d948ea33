-- Which entry recalled a message: a second recall gets the first one's answer.
-- Recalls from before this table have no row; one more of those is stored.
CREATE TABLE recall (
    conversation INTEGER NOT NULL,
    target       INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    PRIMARY KEY (conversation, target)
) WITHOUT ROWID;
