// SPDX-License-Identifier: Apache-2.0

/// Rows of words in columns, for a terminal.
struct TextTable: Sendable {
  /// The heading first; all of the same length.
  let rows: [[String]]
  /// Those that stand at the right of their column.
  let numberColumns: Set<Int>

  /// The heading, a line of dashes, and the rest.
  var lines: [String] {
    let columnCount = self.rows.first?.count ?? 0
    let widths = (0..<columnCount).map { column in self.rows.map { $0[column].count }.max() ?? 0 }
    var lines = self.rows.map { row in
      row.indices.map { column in
        let padding = String(repeating: " ", count: widths[column] - row[column].count)
        return self.numberColumns.contains(column) ? padding + row[column] : row[column] + padding
      }.joined(separator: "  ").trimmingTrailingSpaces
    }
    guard !lines.isEmpty else { return [] }
    lines.insert(String(repeating: "-", count: widths.reduce(0, +) + 2 * (columnCount - 1)), at: 1)
    return lines
  }
}

extension String {
  fileprivate var trimmingTrailingSpaces: String {
    String(self.reversed().drop { $0 == " " }.reversed())
  }
}
