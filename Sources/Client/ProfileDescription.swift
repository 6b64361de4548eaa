// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import Resolver
internal import Trust

/// The content of `profile.json`.
struct ProfileDescription: Codable {
  static let currentVersion = 1

  struct Process: Codable {
    var path: String
    var addresses: [String]
  }

  var version: Int
  var path: String?
  /// The domain's name in DNS.
  var dns: String?
  var processes: [Process]
  private(set) var dnsName: DNSName?
  private(set) var startingPoints: [Profile.StartingPoint] = []

  private enum CodingKeys: String, CodingKey {
    case version, path, dns, processes
  }

  private struct VersionOnly: Decodable {
    var version: Int
  }

  init(path: String?, processes: [Profile.Process], dns: DNSName? = nil) {
    self.version = Self.currentVersion
    self.path = path
    self.dns = dns?.description
    self.dnsName = dns
    self.processes = processes.map { Process(path: $0.path, addresses: $0.addresses) }
  }

  init(readingFrom file: String) throws(ProfileError) {
    let data = Data(try PrivateFiles.readText(file).utf8)
    let decoder = JSONDecoder()
    guard let version = try? decoder.decode(VersionOnly.self, from: data).version else {
      throw ProfileError(file, .malformed("it is no profile description"))
    }
    guard version <= Self.currentVersion else { throw ProfileError(file, .newerVersion(version)) }
    do {
      self = try decoder.decode(Self.self, from: data)
    } catch {
      throw ProfileError(file, .malformed("it is no profile description"))
    }
    self.dnsName = try self.dns.map { (name: String) throws(ProfileError) in try Profile.dnsName(name, in: file) }
    self.startingPoints = try Profile.startingPoints(
      self.processes.map { Profile.Process(path: $0.path, addresses: $0.addresses) }, in: file)
  }

  func encoded() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(self), as: UTF8.self) + "\n"
  }
}
