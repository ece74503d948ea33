-- Names that groups had, each up to the entry that gave the next one (by the
-- conversation's server): who left before that entry goes on seeing it. What was
-- renamed before version 6 is not here; it shows the oldest name that is known.
CREATE TABLE IF NOT EXISTS past_name (
    conversation VARBINARY(135)  NOT NULL,
    until_seq    BIGINT UNSIGNED NOT NULL,   -- of the renaming; the name is that of before
    name         BLOB            NOT NULL,
    PRIMARY KEY (conversation, until_seq)
) ENGINE = InnoDB;
