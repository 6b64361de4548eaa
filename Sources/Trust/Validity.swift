// SPDX-License-Identifier: Apache-2.0

package import FoundationEssentials

/// When a certificate may be used: from the first to the last instant, both included, in whole seconds.
package struct Validity: Hashable, Sendable {
  package let notBefore: Date
  package let notAfter: Date

  package init(notBefore: Date, notAfter: Date) {
    self.notBefore = Date(timeIntervalSince1970: notBefore.timeIntervalSince1970.rounded(.down))
    self.notAfter = Date(timeIntervalSince1970: notAfter.timeIntervalSince1970.rounded(.down))
  }

  /// From now on for `lifetime`. It begins five minutes earlier, for those whose clocks are behind.
  package init(from now: Date, lifetime: Duration) {
    self.init(notBefore: now - 300, notAfter: now + TimeInterval(lifetime.components.seconds))
  }

  /// From now on, with the end that RFC 5280, 4.1.2.5, has for certificates without one.
  package init(unlimitedFrom now: Date) {
    self.init(notBefore: now - 300, notAfter: Date(timeIntervalSince1970: 253_402_300_799))
  }

  /// When two thirds have passed: the time to ask for a new certificate.
  package var renewAt: Date {
    self.notBefore + self.notAfter.timeIntervalSince(self.notBefore) * 2 / 3
  }

  package func require(_ time: Date) throws(TrustError) {
    guard time >= self.notBefore else { throw .notYetValid }
    guard time <= self.notAfter else { throw .expired }
  }

  func intersection(_ other: Validity) -> Validity {
    Validity(notBefore: max(self.notBefore, other.notBefore), notAfter: min(self.notAfter, other.notAfter))
  }
}
