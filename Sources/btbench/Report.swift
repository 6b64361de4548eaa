// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// Everything that was measured, for people and for programs.
struct Report: Sendable {
  let scale: Scale
  let runCount: Int
  let figures: Figures
  /// What could not be measured, and why.
  let notes: [String]

  // MARK: For people

  var table: String {
    var rows = [["figure", "median", "lowest", "highest", "unit", "ratio", "target", ""]]
    for series in self.figures.series {
      let standing = Self.standing(of: series, self.figures)
      rows.append([
        series.name, Format.number(series.median), Format.number(series.least), Format.number(series.most),
        series.unit, standing?.ratio.map { Format.number($0) } ?? "", standing?.asked ?? "",
        standing.map(Self.verdict) ?? "",
      ])
    }
    var lines = TextTable(rows: rows, numberColumns: [1, 2, 3, 5]).lines
    lines += self.notes
    return lines.joined(separator: "\n")
  }

  private static func standing(of series: Series, _ figures: Figures) -> Target.Standing? {
    Target.all.first { $0.name == series.name }?.standing(in: figures)
  }

  private static func verdict(_ standing: Target.Standing) -> String {
    switch standing.isMet {
    case nil: ""
    case true?: "met"
    case false?: "missed by \(Int((100 * (1 - standing.reached)).rounded(.up))) %"
    }
  }

  // MARK: For programs

  private struct Document: Encodable {
    struct Figure: Encodable {
      let name: String
      let unit: String
      let median: Double
      let values: [Double]
      let target: Aim?
    }

    struct Aim: Encodable {
      let asked: String
      let required: Double
      let ratio: Double?
      let isMet: Bool?
    }

    let format = 1
    let machine: Machine
    let scale: Scale
    let runs: Int
    let figures: [Figure]
    let notes: [String]
  }

  var json: Data {
    get throws {
      let figures = self.figures.series.map { series in
        Document.Figure(
          name: series.name, unit: series.unit, median: series.median, values: series.values,
          target: Self.standing(of: series, self.figures).map {
            Document.Aim(asked: $0.asked, required: $0.required, ratio: $0.ratio, isMet: $0.isMet)
          })
      }
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
      return try encoder.encode(
        Document(
          machine: Machine(), scale: self.scale, runs: self.runCount, figures: figures, notes: self.notes))
    }
  }
}

/// What the figures were measured on.
struct Machine: Encodable, Sendable {
  let processor: String
  let coreCount: Int
  let memoryByteCount: UInt64
  let system: String
  #if DEBUG
    let build = "debug"
  #else
    let build = "release"
  #endif

  init() {
    let lines = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?.split(separator: "\n") ?? []
    let model = lines.first { $0.hasPrefix("model name") }?.split(separator: ":").last
    self.processor = model.map { String($0.drop { $0 == " " }) } ?? "unknown"
    let info = ProcessInfo.processInfo
    self.coreCount = info.activeProcessorCount
    self.memoryByteCount = info.physicalMemory
    self.system = info.operatingSystemVersionString
  }
}

enum Format {
  /// As many digits as mean something: `0.62`, `3.14`, `54.1`, `12,345`.
  static func number(_ value: Double) -> String {
    if abs(value) < 100, value != value.rounded() {
      let digits = abs(value) < 10 ? 100.0 : 10.0
      return "\((value * digits).rounded() / digits)"
    }
    var text = String(Int(abs(value).rounded()))
    var start = text.endIndex
    while let next = text.index(start, offsetBy: -3, limitedBy: text.startIndex), next > text.startIndex {
      text.insert(",", at: next)
      start = next
    }
    return value < 0 ? "-" + text : text
  }
}
