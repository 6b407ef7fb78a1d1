//! A new configuration over one that is there, without losing what others put in.
//!
//! Three trees come in: what was written last, what is there now, and what is to
//! be. What is in the first and no longer in the last is ours and goes; what is
//! in neither belongs to someone else and stays where it is; what is in the last
//! gets its value. So a route that is switched leaves no provider behind, and a
//! setting made by hand or by the harness itself survives.
//!
//! Lists of objects with an `id` are merged by it; of other lists, items that are
//! not ours stay behind ours.

use crate::document::Document;

/// `new` over `there`, where `last` was written before, if it is known. At the
/// dotted paths in `seeds` a value that is there stays.
pub(crate) fn merged(
    last: Option<&Document>,
    there: &Document,
    new: &Document,
    seeds: &[&str],
) -> Document {
    match (there, new) {
        (Document::Object(theirs), Document::Object(ours)) => object(last, theirs, ours, seeds),
        (Document::List(theirs), Document::List(ours)) => list(last, theirs, ours),
        _ if seeds.contains(&"") => there.clone(),
        _ => new.clone(),
    }
}

type Field = (String, Document);

fn object(last: Option<&Document>, theirs: &[Field], ours: &[Field], seeds: &[&str]) -> Document {
    let before = |key: &str| last.and_then(|last| last.field(key));
    let mut fields = Vec::with_capacity(theirs.len());
    for (key, there) in theirs {
        let new = ours.iter().find(|(name, _)| name == key);
        let kept = match (new, before(key)) {
            (Some((_, new)), last) => Some(merged(last, there, new, &below(seeds, key))),
            (None, Some(last)) => without(last, there),
            (None, None) => Some(there.clone()),
        };
        fields.extend(kept.map(|value| (key.clone(), value)));
    }
    let is_there = |key: &String| theirs.iter().any(|(name, _)| name == key);
    let added = ours.iter().filter(|(key, _)| !is_there(key));
    fields.extend(added.cloned());
    Document::Object(fields)
}

/// What of `there` is not of `last`; `None` if nothing is left.
fn without(last: &Document, there: &Document) -> Option<Document> {
    let nothing = match last {
        Document::Object(_) => Document::Object(Vec::new()),
        Document::List(_) => Document::List(Vec::new()),
        _ => return None,
    };
    let left = merged(Some(last), there, &nothing, &[]);
    (!left.is_empty()).then_some(left)
}

fn list(last: Option<&Document>, theirs: &[Document], ours: &[Document]) -> Document {
    let before = last.map(Document::items).unwrap_or_default();
    let mut items: Vec<Document> = Vec::with_capacity(ours.len());
    for new in ours {
        let there = same(theirs, new);
        items.push(match there {
            Some(there) => merged(same(before, new), there, new, &[]),
            None => new.clone(),
        });
    }
    let foreign = |item: &&Document| same(ours, item).is_none() && same(before, item).is_none();
    items.extend(theirs.iter().filter(foreign).cloned());
    Document::List(items)
}

/// The item of `among` that is `item`: by `id` if it has one, else by value.
fn same<'a>(among: &'a [Document], item: &Document) -> Option<&'a Document> {
    let id = item.field("id");
    among.iter().find(|other| match id {
        Some(id) => other.field("id") == Some(id),
        None => *other == item,
    })
}

/// Of dotted paths, what is left of those that begin with `key`.
fn below<'a>(paths: &[&'a str], key: &str) -> Vec<&'a str> {
    let rest = |path: &&'a str| match path.strip_prefix(key)? {
        "" => Some(""),
        rest => rest.strip_prefix('.'),
    };
    paths.iter().filter_map(rest).collect()
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
