-- Answers to writes that came with an Idempotency-Key, so that the same request twice counts once. Kept for a day.

CREATE TABLE idempotency (
    consumer    uuid        NOT NULL,  -- the token
    key         text        NOT NULL,
    request     bytea       NOT NULL,  -- SHA-256 of the body
    answer      json        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),

    PRIMARY KEY (consumer, key)
);

CREATE INDEX idempotency_age ON idempotency (created_at);
