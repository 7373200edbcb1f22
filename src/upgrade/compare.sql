-- Is all of the new schema (main) in the old database (old), and nothing else
-- about the same tables? What a user added beside them does no harm.
CREATE TEMP TABLE thing AS
  SELECT 'new' AS of, type, name, tbl_name, sql FROM main.sqlite_schema WHERE substr(name, 1, 7) <> 'sqlite_'
  UNION ALL
  SELECT 'old', type, name, tbl_name, sql FROM old.sqlite_schema
  WHERE substr(name, 1, 7) <> 'sqlite_' AND tbl_name IN (SELECT tbl_name FROM main.sqlite_schema);
SELECT '=' || CASE WHEN EXISTS (
  SELECT 1 FROM temp.thing GROUP BY type, name, tbl_name, sql HAVING count(*) <> 2
) THEN 'different' ELSE 'same' END;
