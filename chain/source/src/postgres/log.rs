//! The change log in PostgreSQL: a table with the keys of rows that changed, and triggers that write to it and tell of it.

use xdpchain_spec::SourceSpec;

use crate::table::quoted;

/// Names of the table and of what the change log is made of.
pub(crate) struct Names {
    schema: String,
    table: String,
}

impl Names {
    /// A table without a schema is one of `public`.
    pub(crate) fn of(source: &SourceSpec) -> Self {
        match source.table.split_once('.') {
            Some((schema, table)) => Self { schema: schema.to_owned(), table: table.to_owned() },
            None => Self { schema: "public".to_owned(), table: source.table.clone() },
        }
    }

    fn in_schema(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(name))
    }

    pub(crate) fn table(&self) -> String {
        self.in_schema(&self.table)
    }

    pub(crate) fn log(&self) -> String {
        self.in_schema(&format!("xdpchain_{}", self.table))
    }

    /// What a notification says.
    pub(crate) fn payload(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

/// The change log's table, function and triggers.
pub(crate) fn change_log(source: &SourceSpec) -> String {
    let names = Names::of(source);
    let (table, log, key) = (names.table(), names.log(), quoted(&source.key));
    let own = |what: &str| format!("xdpchain_{}_{what}", names.table);
    let function = names.in_schema(&own("changed"));
    let payload = names.payload().replace('\'', "''");
    let mut sql = format!(
        "BEGIN;\n\
         CREATE TABLE IF NOT EXISTS {log} AS SELECT {key} AS key FROM {table} WITH NO DATA;\n\
         ALTER TABLE {log}\n  \
           ADD COLUMN IF NOT EXISTS xid xid8 NOT NULL DEFAULT pg_current_xact_id(),\n  \
           ADD COLUMN IF NOT EXISTS at timestamptz NOT NULL DEFAULT clock_timestamp();\n\
         CREATE INDEX IF NOT EXISTS {xid} ON {log} (xid);\n\
         CREATE INDEX IF NOT EXISTS {at} ON {log} (at);\n\
         CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\n  \
           SET search_path = pg_catalog, pg_temp AS $xdpchain$\n\
         BEGIN\n  \
           CASE TG_OP\n    \
             WHEN 'INSERT' THEN INSERT INTO {log} (key) SELECT {key} FROM new_rows;\n    \
             WHEN 'UPDATE' THEN INSERT INTO {log} (key) SELECT {key} FROM new_rows UNION ALL SELECT {key} FROM old_rows;\n    \
             WHEN 'DELETE' THEN INSERT INTO {log} (key) SELECT {key} FROM old_rows;\n    \
             ELSE INSERT INTO {log} (key) VALUES (NULL);\n  \
           END CASE;\n  \
           PERFORM pg_notify('xdpchain', '{payload}');\n  \
           RETURN NULL;\n\
         END $xdpchain$;\n",
        xid = quoted(&own("xid")),
        at = quoted(&own("at")),
    );
    for (event, rows) in [
        ("INSERT", " REFERENCING NEW TABLE AS new_rows"),
        ("UPDATE", " REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"),
        ("DELETE", " REFERENCING OLD TABLE AS old_rows"),
        ("TRUNCATE", ""),
    ] {
        let trigger = quoted(&own(&event.to_lowercase()));
        sql.push_str(&format!(
            "DROP TRIGGER IF EXISTS {trigger} ON {table};\n\
             CREATE TRIGGER {trigger} AFTER {event} ON {table}{rows}\n  \
               FOR EACH STATEMENT EXECUTE FUNCTION {function}();\n"
        ));
    }
    sql + "COMMIT;\n"
}

/// Removes changes that nobody asks for any more.
pub(crate) fn prune(names: &Names) -> String {
    format!("DELETE FROM {} WHERE at < now() - interval '24 hours'", names.log())
}
