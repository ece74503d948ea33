//! The monthly partitions that a database has.

use sqlx::{AssertSqlSafe, MySqlConnection, Row};

use super::{failure::Failure, months::Month};
use crate::StoreError;

/// The months that have partitions, oldest first, with rows and bytes.
pub(super) async fn partitions(
    connection: &mut MySqlConnection,
) -> Result<Vec<(Month, u64, u64)>, StoreError> {
    Ok(find_partitions(connection).await?)
}

async fn find_partitions(
    connection: &mut MySqlConnection,
) -> Result<Vec<(Month, u64, u64)>, Failure> {
    let rows = sqlx::query(
        "SELECT CAST(partition_name AS BINARY), CAST(table_rows AS UNSIGNED),
                CAST(data_length AS UNSIGNED)
         FROM information_schema.partitions
         WHERE table_schema = DATABASE() AND table_name = 'message'
         ORDER BY partition_ordinal_position",
    )
    .fetch_all(connection)
    .await?;
    let mut months = Vec::new();
    for row in rows {
        let name: Option<Vec<u8>> = row.try_get(0)?;
        let name = String::from_utf8(name.unwrap_or_default()).unwrap_or_default();
        if let Some(month) = Month::of_partition(&name) {
            months.push((month, row.try_get(1)?, row.try_get(2)?));
        }
    }
    Ok(months)
}

/// Whether a month has a partition.
pub(super) async fn has(
    connection: &mut MySqlConnection,
    month: Month,
) -> Result<bool, StoreError> {
    let months = partitions(connection).await?;
    Ok(months.iter().any(|(there, ..)| *there == month))
}

/// Takes a month out of a table, if it is there.
pub(super) async fn drop_partition(
    connection: &mut MySqlConnection,
    table: &str,
    month: Month,
) -> Result<(), StoreError> {
    let drop = async {
        let partition = month.partition();
        let there: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM information_schema.partitions
             WHERE table_schema = DATABASE() AND table_name = ? AND partition_name = ?",
        )
        .bind(table)
        .bind(&partition)
        .fetch_one(&mut *connection)
        .await?;
        if there > 0 {
            let sql = format!("ALTER TABLE {table} DROP PARTITION {partition}");
            sqlx::query(AssertSqlSafe(sql))
                .execute(&mut *connection)
                .await?;
        }
        Ok::<_, Failure>(())
    };
    Ok(drop.await?)
}
