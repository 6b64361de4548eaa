// SPDX-License-Identifier: Apache-2.0

internal import SwiftProtobuf

/// The files of a schema by name, symbol and extension, for reflection.
struct SchemaIndex: Sendable {
  private struct File {
    /// The serialized `FileDescriptorProto`.
    let bytes: [UInt8]
    let dependencies: [String]
  }

  private var files: [String: File] = [:]
  private var fileBySymbol: [String: String] = [:]
  private var extensions: [String: [Int32: String]] = [:]

  init(_ set: Google_Protobuf_FileDescriptorSet) throws {
    for file in set.file {
      self.files[file.name] = File(bytes: try file.serializedBytes(), dependencies: file.dependency)
      let prefix = file.package.isEmpty ? "" : file.package + "."
      for message in file.messageType { self.add(message, prefix, file.name) }
      for item in file.enumType { self.add(item, prefix, file.name) }
      self.add(file.extension, prefix, file.name)
      for service in file.service {
        self.fileBySymbol[prefix + service.name] = file.name
        for method in service.method { self.fileBySymbol["\(prefix)\(service.name).\(method.name)"] = file.name }
      }
    }
  }

  private mutating func add(_ message: Google_Protobuf_DescriptorProto, _ prefix: String, _ file: String) {
    let name = prefix + message.name
    self.fileBySymbol[name] = file
    for field in message.field { self.fileBySymbol["\(name).\(field.name)"] = file }
    for group in message.oneofDecl { self.fileBySymbol["\(name).\(group.name)"] = file }
    for nested in message.nestedType { self.add(nested, name + ".", file) }
    for nested in message.enumType { self.add(nested, name + ".", file) }
    self.add(message.extension, name + ".", file)
  }

  private mutating func add(_ item: Google_Protobuf_EnumDescriptorProto, _ prefix: String, _ file: String) {
    self.fileBySymbol[prefix + item.name] = file
    // The values of an enum stand beside it, not in it.
    for value in item.value { self.fileBySymbol[prefix + value.name] = file }
  }

  private mutating func add(_ items: [Google_Protobuf_FieldDescriptorProto], _ prefix: String, _ file: String) {
    for item in items {
      self.fileBySymbol[prefix + item.name] = file
      let extended = item.extendee.hasPrefix(".") ? String(item.extendee.dropFirst()) : item.extendee
      self.extensions[extended, default: [:]][item.number] = file
    }
  }

  /// A file and all that it imports, each once, the file itself first; nil when there is no such file.
  func files(from name: String) -> [[UInt8]]? {
    guard self.files[name] != nil else { return nil }
    var queue = [name]
    var seen: Set<String> = [name]
    var bytes: [[UInt8]] = []
    var next = 0
    while next < queue.count {
      defer { next += 1 }
      guard let file = self.files[queue[next]] else { continue }
      bytes.append(file.bytes)
      for dependency in file.dependencies where seen.insert(dependency).inserted { queue.append(dependency) }
    }
    return bytes
  }

  func file(declaring symbol: String) -> String? { self.fileBySymbol[symbol] }

  func file(extending type: String, number: Int32) -> String? { self.extensions[type]?[number] }

  /// The numbers of a message's extensions, in order; nil when there is no such message.
  func extensionNumbers(of type: String) -> [Int32]? {
    guard self.fileBySymbol[type] != nil else { return nil }
    return self.extensions[type].map { $0.keys.sorted() } ?? []
  }
}
