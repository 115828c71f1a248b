-- A run's journal. One row of `children` is the commit point of one child.
CREATE TABLE run (
  name TEXT NOT NULL,
  run_id TEXT NOT NULL,
  config TEXT NOT NULL,           -- JSON
  created_at REAL NOT NULL,
  epoch INTEGER NOT NULL          -- of the session that may write; every commit checks it
) STRICT;

CREATE TABLE sessions (
  epoch INTEGER PRIMARY KEY,
  phase TEXT NOT NULL,            -- search, finalize, retrain
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  started_at REAL NOT NULL,
  active_seconds REAL NOT NULL DEFAULT 0,
  ended TEXT                      -- done, stopped, interrupted, failed; null when the process was lost
) STRICT;

CREATE TABLE batches (
  replica INTEGER NOT NULL,
  "update" INTEGER NOT NULL,
  base_version INTEGER NOT NULL,
  controller_hash TEXT NOT NULL,
  planned_at REAL NOT NULL,
  epochs INTEGER NOT NULL DEFAULT 0,  -- gradients that the parameter servers have taken (PPO: several)
  applied_at REAL,                -- null until they have taken the last one
  staleness INTEGER,
  outcome TEXT,                   -- applied, down_weighted, dropped; void when all its children are controls
  scalars TEXT NOT NULL DEFAULT '{}',
  PRIMARY KEY (replica, "update")
) STRICT;

CREATE TABLE children (
  child_id TEXT PRIMARY KEY,
  replica INTEGER NOT NULL,
  "update" INTEGER NOT NULL,
  "index" INTEGER NOT NULL,
  number INTEGER NOT NULL,
  tokens TEXT NOT NULL,           -- JSON
  architecture TEXT NOT NULL,     -- JSON
  key TEXT NOT NULL,              -- canonical key
  seed INTEGER NOT NULL,
  arm TEXT NOT NULL,              -- search, or control: sampled at random, not learned from
  log_prob REAL,                  -- null where no policy gave it (a mutation)
  entropy REAL,
  step_log_probs TEXT,            -- JSON, by decision; null unless the strategy needs them again
  planned_at REAL NOT NULL,
  status TEXT,                    -- ok, failed; null until done
  cause TEXT,
  message TEXT,
  metric REAL,                    -- the one of its metrics that counts
  reward REAL,
  parameters INTEGER,             -- one of its metrics, as is the next
  seconds REAL,
  details TEXT,                   -- JSON
  started_at REAL,                -- null for an answer from the cache
  finished_at REAL,
  worker TEXT,
  attempts INTEGER NOT NULL DEFAULT 0,
  cached_from TEXT,
  epoch INTEGER,                  -- of the session that committed it
  metrics TEXT,                   -- JSON: all of them by name; null of a child that version 1 committed
  FOREIGN KEY (replica, "update") REFERENCES batches (replica, "update")
) STRICT;

CREATE UNIQUE INDEX children_by_batch ON children (replica, "update", "index");
CREATE INDEX children_by_key ON children (key, status);
CREATE INDEX children_by_reward ON children (reward);
CREATE INDEX children_by_time ON children (finished_at);

CREATE TABLE phases (             -- in which the workers trained what children share
  phase INTEGER PRIMARY KEY,
  tokens TEXT NOT NULL,           -- as version 1 kept them; else empty
  planned_at REAL NOT NULL,
  path TEXT,                      -- of the shared tensors after it; null until done
  result TEXT,                    -- JSON: loss, digest, seconds, sha256 of the file, details
  finished_at REAL,
  packed_tokens BLOB              -- zlib of JSON: (steps, architectures of a step, decisions); null: of version 1
) STRICT;

CREATE TABLE events (
  time REAL NOT NULL,
  kind TEXT NOT NULL,
  detail TEXT NOT NULL            -- JSON
) STRICT;

CREATE TABLE snapshots (
  path TEXT PRIMARY KEY,
  version INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  created_at REAL NOT NULL
) STRICT;

CREATE TABLE trainings (          -- of architectures that the search, or a reader, has chosen
  stage TEXT NOT NULL,            -- of `finalize`, or retrain, grid
  source TEXT NOT NULL,           -- a child_id, or the name of a published architecture
  architecture TEXT NOT NULL,     -- JSON
  rank INTEGER NOT NULL,          -- before this training
  seed INTEGER NOT NULL,
  settings TEXT NOT NULL,         -- JSON: estimator, dataset, scale, test, and the point of the grid
  evaluation TEXT,                -- JSON, with the metric that counts as `metric`; null until done
  reward REAL,
  test_metric REAL,
  finished_at REAL,
  PRIMARY KEY (stage, source, seed, settings)
) STRICT;

CREATE TABLE reports (            -- metrics of a child while it trained: its learning curve
  stage TEXT NOT NULL,            -- '' of a child of the search; else the stage of a training after it
  what TEXT NOT NULL,             -- a child_id; of a training SOURCE:SEED:DIGEST, 12 digits of the SHA-256 of `settings`
  term INTEGER NOT NULL,          -- of the session in which it trained
  attempt INTEGER NOT NULL,       -- 1, more where that session tried it again
  step INTEGER NOT NULL,          -- an epoch, or what the child counts in
  metrics TEXT NOT NULL,          -- JSON
  time REAL NOT NULL,
  PRIMARY KEY (stage, what, term, attempt, step)
) STRICT, WITHOUT ROWID;
