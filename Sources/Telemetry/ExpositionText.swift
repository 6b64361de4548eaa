// SPDX-License-Identifier: Apache-2.0

/// The text exposition format of Prometheus, version 0.0.4: what a reader of metrics gets.
///
/// https://prometheus.io/docs/instrumenting/exposition_formats/
package struct ExpositionText {
  /// What the HTTP header says it is.
  package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

  package private(set) var bytes: [UInt8] = []

  /// Each name stands there once: of families with the same name, the first counts.
  package init(_ families: [MetricFamily]) {
    var names: Set<String> = []
    for family in families where names.insert(family.name).inserted { self.write(family) }
  }

  private mutating func write(_ family: MetricFamily) {
    // A name without values says nothing.
    guard !family.samples.isEmpty else { return }
    if let help = family.help { self.line("# HELP \(family.name) \(Self.escape(help))") }
    self.line("# TYPE \(family.name) \(family.kind.rawValue)")
    for sample in family.samples {
      switch sample.value {
      case .integer(let value): self.line(family.name, sample.labels, "\(value)")
      case .number(let value): self.line(family.name, sample.labels, Self.format(value))
      case .histogram(let histogram): self.write(histogram, family.name, sample.labels)
      }
    }
  }

  private mutating func write(_ histogram: Histogram, _ name: String, _ labels: [MetricFamily.Label]) {
    var count: UInt64 = 0
    for (bound, more) in zip(histogram.bounds + [.infinity], histogram.counts) {
      count &+= more
      self.line("\(name)_bucket", labels + [MetricFamily.Label("le", Self.format(bound))], "\(count)")
    }
    self.line("\(name)_sum", labels, Self.format(histogram.sum))
    // The same as the last bucket, of the same moment.
    self.line("\(name)_count", labels, "\(count)")
  }

  private mutating func line(_ name: String, _ labels: [MetricFamily.Label], _ value: String) {
    guard !labels.isEmpty else { return self.line("\(name) \(value)") }
    let pairs = labels.map { "\($0.name)=\"\(Self.escape($0.value, quotes: true))\"" }
    self.line("\(name){\(pairs.joined(separator: ","))} \(value)")
  }

  private mutating func line(_ text: String) {
    self.bytes += text.utf8
    self.bytes.append(UInt8(ascii: "\n"))
  }

  /// As Go reads it.
  static func format(_ value: Double) -> String {
    if value.isNaN { return "NaN" }
    if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
    // 1 rather than 1.0, where that is exact: bounds are compared as text by some readers.
    if value.magnitude <= 0x1p53, value == value.rounded() { return "\(Int64(value))" }
    return "\(value)"
  }

  /// `\` and line feeds, and in the value of a label `"`, too.
  static func escape(_ text: String, quotes: Bool = false) -> String {
    var result = ""
    result.reserveCapacity(text.utf8.count)
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\"" where quotes: result += "\\\""
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}
