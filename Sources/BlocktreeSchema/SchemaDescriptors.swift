// SPDX-License-Identifier: Apache-2.0

internal import Foundation
public import SwiftProtobuf

/// The schema's own description, for server reflection and for calls that are typed only at run time.
public enum SchemaDescriptors {
  /// The `google.protobuf.FileDescriptorSet` of all schema files and what they import, serialized. A file stands after
  /// the files that it imports. Comments are not in it.
  public static let serialized: [UInt8] = base64DescriptorSet.withUTF8Buffer { digits in
    // The build made it from what it decodes to. Nothing but a broken generator gives nil, and the tests would tell.
    [UInt8](Data(base64Encoded: Data(digits)) ?? Data())
  }

  /// The same, parsed.
  public static let fileSet: Google_Protobuf_FileDescriptorSet =
    (try? Google_Protobuf_FileDescriptorSet(serializedBytes: Self.serialized)) ?? Google_Protobuf_FileDescriptorSet()
}
