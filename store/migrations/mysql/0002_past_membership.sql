-- Earlier windows of those who left a group and came back: what they saw then
-- stays theirs. The row in `member` is the latest window; it is copied here,
-- closed, when its user joins again.
CREATE TABLE IF NOT EXISTS past_membership (
    conversation VARBINARY(135)  NOT NULL,
    user         VARBINARY(64)   NOT NULL,
    first_seq    BIGINT UNSIGNED NOT NULL,
    last_seq     BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (conversation, user, first_seq)
) ENGINE = InnoDB;
