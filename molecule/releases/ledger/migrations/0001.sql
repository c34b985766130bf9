CREATE TABLE entries (number bigint NOT NULL, state text NOT NULL DEFAULT 'queued');
CREATE TABLE results (number bigint NOT NULL, release text NOT NULL);
