//! Comma- or line-separated text → its items. A comma inside braces belongs to the item (`*.{jpg,png}`).

/// The items, trimmed, empty ones left out.
pub(super) fn items(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut depth = 0_usize;
    for c in text.chars() {
        match c {
            '\n' => depth = 0,
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c == '\n' || (c == ',' && depth == 0) {
            items.push(String::new());
        } else if let Some(item) = items.last_mut() {
            item.push(c);
        }
    }
    items
        .iter()
        .map(|item| item.trim().to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::items;

    #[test]
    fn commas_and_lines_part_items_but_not_inside_braces() {
        assert_eq!(items("a, b,,c"), ["a", "b", "c"]);
        assert_eq!(items("*.{jpg,png}\n*.tmp,x"), ["*.{jpg,png}", "*.tmp", "x"]);
        assert_eq!(items("{a\nb,c"), ["{a", "b", "c"]);
        assert!(items(" , \n").is_empty());
    }
}
