// SPDX-License-Identifier: Apache-2.0

/// The words of a command line: each option with the value behind it, if it has one.
struct Options {
  private var values: [String: String] = [:]

  init(_ arguments: some Sequence<String>) {
    var last: String?
    for argument in arguments {
      if argument.hasPrefix("--") {
        self.values[argument] = ""
        last = argument
      } else if let option = last {
        self.values[option] = argument
        last = nil
      }
    }
  }

  func has(_ option: String) -> Bool { self.values[option] != nil }
  func integer(_ option: String) -> UInt64? { self.values[option].flatMap { UInt64($0) } }
  subscript(option: String) -> String? { self.values[option].flatMap { $0.isEmpty ? nil : $0 } }
}
