-- Where logs and inboxes begin since months were archived and dropped. Without a
-- row they begin at 1.

-- All below first_seq is gone (by the conversation's server). counting and
-- counting_first are the running sums of the last entry that is gone.
CREATE TABLE IF NOT EXISTS archived_log (
    conversation   VARBINARY(135)  NOT NULL PRIMARY KEY,
    first_seq      BIGINT UNSIGNED NOT NULL,
    counting       BIGINT UNSIGNED NOT NULL,
    counting_first BIGINT UNSIGNED NOT NULL
) ENGINE = InnoDB;

-- By the user's server.
CREATE TABLE IF NOT EXISTS archived_inbox (
    user      VARBINARY(64)   NOT NULL PRIMARY KEY,
    first_seq BIGINT UNSIGNED NOT NULL
) ENGINE = InnoDB;
