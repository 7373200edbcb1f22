-- All rows of the old database (old) into the new one (main), which the new
-- Temporal has just made; or the reason why not. A row of `fault` ends it.
CREATE TEMP TABLE fault(what);
CREATE TEMP TABLE stop(fault CHECK (0));
PRAGMA main.journal_mode = OFF;
PRAGMA main.synchronous = OFF;
PRAGMA main.cache_size = -65536;

INSERT INTO temp.fault
  SELECT 'is damaged: ' || replace(integrity_check, '*** in database old ***' || char(10), '')
  FROM pragma_integrity_check(1, 'old') WHERE integrity_check <> 'ok';
SELECT '!' || what FROM temp.fault;
INSERT INTO temp.stop SELECT 1 FROM temp.fault;

-- Tables, but not SQLite's own, nor those in which FTS keeps its index.
CREATE TEMP TABLE new_table AS
  SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND substr(name, 1, 7) <> 'sqlite_';
CREATE TEMP TABLE old_table AS
  SELECT name, type FROM pragma_table_list
  WHERE schema = 'old' AND (type = 'table' OR type = 'virtual') AND substr(name, 1, 7) <> 'sqlite_';
-- What can be written: generated columns have no rows of their own.
CREATE TEMP TABLE new_column AS
  SELECT t.name AS tab, c.name AS name, c.cid AS cid FROM temp.new_table t, pragma_table_xinfo(t.name, 'main') c
  WHERE c.hidden = 0;
CREATE TEMP TABLE old_column AS
  SELECT t.name AS tab, c.name AS name, c.hidden AS hidden
  FROM temp.old_table t, pragma_table_xinfo(t.name, 'old') c WHERE t.type = 'table';
-- A name for the row that is no column of the table.
CREATE TEMP TABLE copied AS
  SELECT tab, wr,
    group_concat(printf('"%w"', name)) AS columns,
    group_concat(printf('n."%w"', name)) AS of_new,
    group_concat(printf('o."%w"', name)) AS of_old,
    CASE WHEN sum(lower(name) = 'rowid') THEN '_rowid_' ELSE 'rowid' END AS row
  FROM (SELECT * FROM temp.new_column c JOIN temp.new_table t ON t.name = c.tab
    WHERE EXISTS (SELECT 1 FROM temp.old_column o WHERE o.tab = c.tab AND o.name = c.name) ORDER BY c.tab, c.cid)
  GROUP BY tab, wr;

-- 1. Nothing may be lost.
.output check.sql
SELECT printf('INSERT INTO temp.fault SELECT ''has rows in the table %w, which the new schema lacks''
  WHERE EXISTS (SELECT 1 FROM old."%w");', replace(name, '''', ''''''), name)
FROM temp.old_table t WHERE name NOT IN (SELECT l.name FROM pragma_table_list l WHERE l.schema = 'main' AND l.type = t.type)
AND NOT EXISTS (SELECT 1 FROM old.sqlite_schema s WHERE s.name = t.name AND t.type = 'virtual' AND s.sql LIKE '%content=%');
SELECT printf('INSERT INTO temp.fault SELECT ''has values in the column %w of %w, which the new schema lacks''
  WHERE EXISTS (SELECT 1 FROM old."%w" WHERE "%w" IS NOT NULL);',
  replace(name, '''', ''''''), replace(tab, '''', ''''''), tab, name)
FROM temp.old_column o WHERE hidden = 0 AND tab IN (SELECT name FROM temp.new_table)
AND NOT EXISTS (SELECT 1 FROM temp.new_column c WHERE c.tab = o.tab AND c.name = o.name);
.output stdout
.read check.sql
SELECT '!' || what FROM temp.fault LIMIT 1;
INSERT INTO temp.stop SELECT 1 FROM temp.fault;

-- 2. Every row, under the number that it had: the index of FTS names it.
.output copy.sql
SELECT printf('DELETE FROM main."%w";', name) FROM temp.new_table;
SELECT printf('INSERT INTO main."%w" (%s%s) SELECT %s%s FROM old."%w";',
  tab, iif(wr, '', row || ','), columns, iif(wr, '', row || ','), columns, tab) FROM temp.copied;
.output stdout
BEGIN;
.read copy.sql
COMMIT;

-- 3. As many as there were, and the same ones.
.output check.sql
SELECT printf('INSERT INTO temp.fault SELECT ''lost rows of %w on the way''
  WHERE (SELECT count(*) FROM old."%w") <> (SELECT count(*) FROM main."%w")
  OR (SELECT count(*) FROM old."%w") <> (%s);', replace(tab, '''', ''''''), tab, tab, tab,
  iif(wr,
    printf('SELECT count(*) FROM (SELECT %s FROM main."%w" INTERSECT SELECT %s FROM old."%w")', columns, tab, columns, tab),
    printf('SELECT count(*) FROM main."%w" n JOIN old."%w" o ON n.%s = o.%s WHERE (%s) IS (%s)',
      tab, tab, row, row, of_new, of_old)))
FROM temp.copied;
SELECT printf('INSERT INTO main."%w"("%w") VALUES (''integrity-check'');', name, name)
FROM main.sqlite_schema WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE % USING fts5%';
.output stdout
.read check.sql
INSERT INTO temp.fault
  SELECT 'is damaged as a copy: ' || replace(integrity_check, '*** in database main ***' || char(10), '')
  FROM pragma_integrity_check(1, 'main') WHERE integrity_check <> 'ok';
INSERT INTO temp.fault SELECT 'has a row of ' || "table" || ' that names one that is not there' FROM pragma_foreign_key_check(NULL, 'main');
SELECT '!' || what FROM temp.fault LIMIT 1;
INSERT INTO temp.stop SELECT 1 FROM temp.fault;
DETACH old;
SELECT '=migrated';
