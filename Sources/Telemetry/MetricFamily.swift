// SPDX-License-Identifier: Apache-2.0

/// All values of one name at one moment, as the text format has them: a name, what it means, and a value for each
/// combination of labels.
package struct MetricFamily: Hashable, Sendable {
  package enum Kind: String, Hashable, Sendable {
    /// Only grows, until the process ends.
    case counter
    /// What is now.
    case gauge
    /// How often values fell below each of some bounds.
    case histogram
  }

  package struct Label: Hashable, Sendable {
    package let name: String
    package let value: String

    package init(_ name: String, _ value: String) {
      self.name = name
      self.value = value
    }
  }

  package enum Value: Hashable, Sendable {
    /// Written with all its digits: readers may round it, we do not.
    case integer(UInt64)
    case number(Double)
    case histogram(Histogram)
  }

  package struct Sample: Hashable, Sendable {
    package let labels: [Label]
    package let value: Value

    package init(_ labels: [Label], _ value: Value) {
      self.labels = labels
      self.value = value
    }

    /// Without labels.
    package init(_ value: Value) { self.init([], value) }
  }

  /// As the text format wants it: letters, digits, `_` and `:`, and no digit first. ``MetricName`` makes such names.
  package let name: String
  /// One line for people; nil where nobody wrote one.
  package let help: String?
  package let kind: Kind
  package var samples: [Sample]

  package init(_ name: String, _ kind: Kind, help: String?, _ samples: [Sample]) {
    self.name = name
    self.kind = kind
    self.help = help
    self.samples = samples
  }

  /// A family with one value and no labels.
  package init(_ name: String, _ kind: Kind, help: String, _ value: Value) {
    self.init(name, kind, help: help, [Sample(value)])
  }
}

extension MetricFamily.Value {
  /// 1 for true.
  package init(_ condition: Bool) { self = .integer(condition ? 1 : 0) }
}
