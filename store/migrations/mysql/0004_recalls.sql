-- Which entry recalled a message: a second recall gets the first one's answer.
-- Recalls from before this table have no row; one more of those is stored.
CREATE TABLE IF NOT EXISTS recall (
    conversation VARBINARY(135)  NOT NULL,
    target       BIGINT UNSIGNED NOT NULL,
    seq          BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (conversation, target)
) ENGINE = InnoDB;
