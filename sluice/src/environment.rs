//! Settings from the environment: `SLUICE__BUS__REDIS__PASSWORD=…` is the key
//! `bus.redis.password`, and goes before the file.

use anyhow::{Context, anyhow, bail};
use toml::{Table, Value};

/// What the names of such variables begin with.
pub const PREFIX: &str = "SLUICE__";

/// Puts the variables into the table. What type a value has is seen in `guide`,
/// where every key is; a key that isn't there is named when the table is read.
pub fn overlay(
    table: &mut Table,
    guide: &Table,
    variables: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<()> {
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(PREFIX) else {
            if name.starts_with("SLUICE_") && name.contains("__") {
                let meant = name.replacen("SLUICE_", PREFIX, 1);
                bail!("{name} is no setting: did you mean {meant}?");
            }
            continue;
        };
        let path: Vec<String> = path.split("__").map(str::to_lowercase).collect();
        // The value may be a secret: errors name the variable alone.
        let model = lookup(guide, &path);
        let value = value(model, &text).with_context(|| {
            let example = model.map(|it| format!(", such as {it}"));
            format!("{name} wants a value{}", example.unwrap_or_default())
        })?;
        set(table, &path, value)
            .with_context(|| format!("{name} goes through a key that is no table"))?;
    }
    Ok(())
}

fn lookup<'a>(guide: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (last, tables) = path.split_last()?;
    let mut table = guide;
    for name in tables {
        table = table.get(name)?.as_table()?;
    }
    table.get(last)
}

fn value(model: Option<&Value>, text: &str) -> anyhow::Result<Value> {
    match model {
        None | Some(Value::String(_)) => Ok(Value::String(text.to_owned())),
        Some(Value::Array(models))
            if !text.trim_start().starts_with('[') && !models.iter().any(Value::is_table) =>
        {
            let words = text
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty());
            let words = words.map(|word| Value::String(word.to_owned()));
            Ok(Value::Array(words.collect()))
        }
        Some(_) => {
            let parsed = toml::from_str::<Table>(&format!("value = {text}"));
            // The parser's message names no part of the text, but its picture does.
            let mut table = parsed.map_err(|error| anyhow!("{}", error.message()))?;
            table.remove("value").context("no value")
        }
    }
}

fn set(table: &mut Table, path: &[String], value: Value) -> anyhow::Result<()> {
    let Some((last, tables)) = path.split_last() else {
        return Ok(());
    };
    let mut table = table;
    for name in tables {
        let inner = table
            .entry(name.clone())
            .or_insert_with(|| Value::Table(Table::new()));
        table = inner.as_table_mut().context("no table")?;
    }
    table.insert(last.clone(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaid(variables: &[(&str, &str)]) -> anyhow::Result<Table> {
        let mut table: Table = toml::from_str("[bus.redis]\nport = 1\n").unwrap();
        let guide = "password = ''\nurls = []\nport = 0\non = false\nservers = []";
        let guide = toml::from_str(&format!("[bus.redis]\n{guide}")).unwrap();
        let variables = variables.iter();
        let owned = variables.map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        overlay(&mut table, &guide, owned)?;
        Ok(table)
    }

    #[test]
    fn variables_go_before_the_file_and_keep_its_types() {
        let table = overlaid(&[
            ("SLUICE__BUS__REDIS__PASSWORD", "12345"),
            ("SLUICE__BUS__REDIS__URLS", "redis://a, redis://b"),
            ("SLUICE__BUS__REDIS__SERVERS", "[{ url = 'x' }]"),
            ("SLUICE__BUS__REDIS__PORT", "6_379"),
            ("SLUICE__BUS__REDIS__ON", "true"),
            ("SLUICE__NEW__KEY", "word"),
            ("SLUICE_PASSWORD", "of another program"),
        ])
        .unwrap();
        let expected = "[bus.redis]\nport = 6379\npassword = '12345'\non = true\n\
            urls = ['redis://a', 'redis://b']\nservers = [{ url = 'x' }]\n[new]\nkey = 'word'";
        assert_eq!(table, toml::from_str::<Table>(expected).unwrap());
    }

    #[test]
    fn a_name_with_an_underscore_too_few_is_not_passed_over() {
        let error = overlaid(&[("SLUICE_BUS__REDIS__PORT", "2")]).unwrap_err();
        assert!(error.to_string().contains("SLUICE__BUS__REDIS__PORT"));
        assert!(overlaid(&[("SLUICE_PASSWORD", "hush")]).is_ok());
    }

    #[test]
    fn who_gets_it_wrong_is_shown_an_example() {
        let mut table = Table::new();
        let guide = toml::from_str("servers = [{ url = 'mysql://db/x' }]\nport = 6").unwrap();
        let mut told = |name: &str, text: &str| {
            let variable = (format!("SLUICE__{name}"), text.to_owned());
            let error = overlay(&mut table, &guide, [variable].into_iter()).unwrap_err();
            format!("{error:#}")
        };
        let one = told("SERVERS", "mysql://hush@db/x");
        assert!(
            one.contains(r#"[{ url = "mysql://db/x" }]"#) && !one.contains("hush"),
            "{one}"
        );
        let unclosed = told("SERVERS", r#"[{ url = "mysql://hush@db/x"]"#);
        assert!(!unclosed.contains("hush"), "{unclosed}");
        assert!(told("PORT", "hush").starts_with("SLUICE__PORT wants a value, such as 6: "));
    }

    #[test]
    fn a_bad_value_is_named_but_not_shown() {
        for name in ["SLUICE__BUS__REDIS__PORT", "SLUICE__BUS__REDIS__PORT__X"] {
            let error = overlaid(&[(name, "hush hush")]).unwrap_err();
            let shown = format!("{error:#}");
            assert!(shown.contains(name) && !shown.contains("hush"), "{shown}");
        }
    }
}
